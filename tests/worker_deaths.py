"""Deaths of loader workers are seen at once, for which torch lets five seconds pass: most of what such tests took."""

from torch.utils.data import dataloader

LOOK_SECONDS = 0.1


def look_often() -> None:
    """Let the loaders of this process look after their workers each tenth of a second."""
    look = dataloader._MultiProcessingDataLoaderIter._try_get_data
    assert look.__defaults__ == (dataloader._utils.MP_STATUS_CHECK_INTERVAL,)
    look.__defaults__ = (LOOK_SECONDS,)
