from upchirp.randomness import Stream, philox, step_seed


def test_streams_are_those_of_earlier_versions_and_have_nothing_in_common() -> None:
    numbers = {stream.name: int(philox(stream, 5, 3).random_raw()) for stream in Stream}
    assert len(set(numbers.values())) == len(Stream)
    # Computed by version 0.1, before the streams had one home.
    before = {
        "ORDER": 10531834263884828283,
        "SEEDS": 11393126186919961281,
        "REPLACEMENTS": 17040930496212803509,
        "REPLAYS": 15102780189591245292,
        "SELECTION": 903136809834654952,
        "SPLIT": 16044754903389048416,
        "MIXING": 8678750200884318776,
        "ERASING": 15862059966177839276,
        "NOISE": 17630596179420782085,
    }
    assert {name: numbers[name] for name in before} == before
    assert step_seed(5, 3, 1) == 1437603443610200845
