"""Tokens in chunks, as the WebUI cuts them."""

from triptych.chunks import chunks_of

START, END, PAD, COMMA = 900, 901, 902, 903
LENGTH = 77


def cut(*parts):
    """The tokens of each chunk without start, end and padding."""
    chunks = chunks_of(parts, LENGTH, START, END, PAD, COMMA)
    found = []
    for chunk in chunks:
        assert len(chunk.tokens) == len(chunk.weights) == LENGTH
        assert chunk.tokens[0] == START
        end = chunk.tokens.index(END)
        assert set(chunk.tokens[end + 1 :]) <= {PAD}
        assert chunk.weights[0] == 1 and set(chunk.weights[end:]) == {1}
        found.append(chunk.tokens[1:end])
    return found


def words(*tokens, weight=1.0):
    return ([[token] for token in tokens], weight)


def test_nothing_is_one_chunk():
    assert cut([]) == [[]]


def test_a_chunk_holds_75_tokens():
    assert [len(chunk) for chunk in cut([words(*range(75))])] == [75]
    assert [len(chunk) for chunk in cut([words(*range(76))])] == [75, 1]
    assert [len(chunk) for chunk in cut([words(*range(151))])] == [75, 75, 1]


def test_a_chunk_ends_at_a_comma_near_its_end():
    tokens = [*range(60), COMMA, *range(61, 80)]
    assert cut([words(*tokens)]) == [tokens[:61], tokens[61:]]


def test_a_comma_far_from_the_end_is_no_place_to_cut():
    tokens = [*range(54), COMMA, *range(55, 80)]
    assert cut([words(*tokens)]) == [tokens[:75], tokens[75:]]
    tokens = [*range(55), COMMA, *range(56, 80)]
    assert cut([words(*tokens)]) == [tokens[:56], tokens[56:]]


def test_a_comma_that_does_not_fit_goes_on_by_itself():
    tokens = [*range(70), COMMA, *range(71, 75), COMMA, 80]
    assert cut([words(*tokens)]) == [tokens[:75], [COMMA, 80]]


def test_a_comma_of_the_chunk_before_counts_no_more():
    tokens = [*range(70), COMMA, *range(100, 180)]
    assert cut([words(*tokens)]) == [tokens[:71], tokens[71:146], tokens[146:]]


def test_each_part_begins_a_chunk():
    assert cut([words(1, 2)], [], [words(3)]) == [[1, 2], [], [3]]


def test_weights_stay_with_their_tokens():
    part = [words(*range(60)), words(COMMA, *range(61, 80), weight=1.5)]
    first, second = chunks_of([part], LENGTH, START, END, PAD, COMMA)
    assert first.weights == [1.0] + [1.0] * 60 + [1.5] + [1.0] * 15
    assert second.weights == [1.0] + [1.5] * 19 + [1.0] * 57


def test_the_vectors_of_one_word_stay_together():
    part = [([*([n] for n in range(73)), [500, 501, 502], [7]], 1.0)]
    assert cut(part) == [[*range(73)], [500, 501, 502, 7]]


def test_a_word_of_more_vectors_than_a_chunk_holds_is_cut():
    assert [len(chunk) for chunk in cut([([[*range(100)]], 2.0)])] == [75]


def test_a_word_that_does_not_fit_after_the_comma_either_begins_a_chunk():
    vectors = list(range(100, 175))
    tokens = [*range(60), COMMA, *range(61, 75)]
    cuts = cut([([*([token] for token in tokens), vectors], 1.0)])
    assert cuts == [tokens[:61], tokens[61:], vectors]
