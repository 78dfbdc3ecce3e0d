"""Search: the curriculum for one's own data and model, by the paper's algorithms."""

from upchirp.search.config import SearchConfig
from upchirp.search.cost import Price, Rates
from upchirp.search.events import Begun, Found, Scored, SearchEvent, SearchObserver, Working
from upchirp.search.greedy import greedy_search
from upchirp.search.job import SearchResult, estimate, search
from upchirp.search.objectives import Objective, objective
from upchirp.search.sequential import sequential_search
from upchirp.search.trial import Outcome, Train, Trial

__all__ = [
    "Begun",
    "Found",
    "Objective",
    "Outcome",
    "Price",
    "Rates",
    "Scored",
    "SearchConfig",
    "SearchEvent",
    "SearchObserver",
    "SearchResult",
    "Train",
    "Trial",
    "Working",
    "estimate",
    "greedy_search",
    "objective",
    "search",
    "sequential_search",
]
