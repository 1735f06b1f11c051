import re
from itertools import product

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")

from shaplab import GroupedGame, estimate_values, owen_values, plots, shapley_values  # noqa: E402
from shaplab.players.words import WordGame, phrases_of  # noqa: E402

VOCABULARY = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "the",
    "ref",
    "##und",
    "was",
    "late",
    ",",
]
NUMBER = {token: number for number, token in enumerate(VOCABULARY)}


def fast_tokenizer(**options):
    """Lower case, words cut at spaces and punctuation, pieces as in VOCABULARY."""
    made = tokenizers.Tokenizer(tokenizers.models.WordPiece(NUMBER, unk_token="[UNK]"))
    made.normalizer = tokenizers.normalizers.BertNormalizer()
    made.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    made.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    special = {
        f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")
    }
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, **(special | options))


@pytest.fixture(scope="module")
def tokenizer():
    return fast_tokenizer()


def weigh(ids, attention):
    """A number that knows each token, its place and its right neighbour."""
    place = torch.arange(1, ids.shape[1] + 1)
    counted = ids.double() * attention
    return (counted * place + counted.square()).sum(dim=1) + (counted[:, 1:] * counted[:, :-1]).sum(
        dim=1
    )


TEXT = "The refund was late, the"


def literal(tokens, absent, present, words):
    """What the model reads, token by token."""
    read = []
    for token, word in zip(tokens, words, strict=True):
        if word is None or present[word]:
            read.append((token, 1))
        elif absent == "mask":
            read.append(("[MASK]", 1))
        elif absent == "pad":
            read.append(("[PAD]", 0))
    return read


@pytest.mark.parametrize("absent", ["mask", "pad", "delete"])
def test_coalitions_are_the_texts_they_say(tokenizer, absent):
    game = WordGame(weigh, tokenizer, TEXT, absent=absent, batch_size=5)
    assert game.names == ("The", "refund", "was", "late", ",", "the")
    assert game.player_of_token.tolist() == [-1, 0, 1, 1, 2, 3, 4, 5, -1]
    tokens = ["[CLS]", "the", "ref", "##und", "was", "late", ",", "the", "[SEP]"]
    words = [None, 0, 1, 1, 2, 3, 4, 5, None]
    coalitions = np.array(list(product([False, True], repeat=6)))
    expected = []
    for present in coalitions:
        read = literal(tokens, absent, present, words)
        ids = torch.tensor([[NUMBER[token] for token, _ in read]])
        expected.append(float(weigh(ids, torch.tensor([[counts for _, counts in read]]))[0]))
    assert np.array_equal(game(coalitions), expected)


def test_values_phrases_and_estimates_go_through_the_usual_functions(tokenizer):
    game = WordGame(weigh, tokenizer, TEXT)
    exact = shapley_values(game, 6)
    found = estimate_values(game, game.n_players, rng=0)
    assert np.allclose(found.values, exact)
    phrases = phrases_of(game.names)
    assert phrases == [[0, 1, 2, 3, 4], [5]]
    of_phrases = shapley_values(GroupedGame(game, phrases), 2)
    owen = owen_values(game, phrases)
    assert np.allclose(of_phrases, [owen[phrase].sum() for phrase in phrases])


def test_rows_and_references_are_those_of_the_game(tokenizer):
    game = WordGame(weigh, tokenizer, TEXT)
    everything, nothing = game(np.array([[True] * 6, [False] * 6]))
    counts = torch.ones_like(game.ids)
    assert float(weigh(game.ids, counts)[0]) == everything
    assert float(weigh(game.absent_ids, counts)[0]) == nothing
    of_tokens = np.arange(9.0)
    assert game.by_word(of_tokens).tolist() == [1.0, 5.0, 4.0, 5.0, 6.0, 7.0]
    both = game.by_word(np.stack([of_tokens, -of_tokens], axis=1))
    assert both[:, 1].tolist() == [-1.0, -5.0, -4.0, -5.0, -6.0, -7.0]
    with pytest.raises(ValueError, match="of_tokens: expected 9 entries"):
        game.by_word(np.ones(6))


@pytest.mark.parametrize("absent", ["mask", "pad", "delete"])
def test_no_coalitions_have_no_outputs_of_the_usual_shape(tokenizer, absent):
    nobody = np.zeros((0, 6), dtype=bool)
    one = WordGame(weigh, tokenizer, TEXT, absent=absent)
    assert one(nobody).shape == (0,)
    two = WordGame(lambda *text: torch.stack([weigh(*text)] * 2, 1), tokenizer, TEXT, absent=absent)
    assert two(nobody).shape == (0, 2)
    ids, attention = one.texts(nobody)
    assert len(ids) == len(attention) == 0


def test_outputs_in_half_precision_and_missing_ones(tokenizer):
    half = WordGame(lambda *text: weigh(*text).bfloat16(), tokenizer, TEXT)
    everybody = np.ones((1, 6), dtype=bool)
    # Eight bits of mantissa.
    assert half(everybody) == pytest.approx(WordGame(weigh, tokenizer, TEXT)(everybody), rel=2**-8)
    missing = WordGame(lambda *text: weigh(*text) * torch.nan, tokenizer, TEXT)
    with pytest.raises(ValueError, match="model: expected finite outputs"):
        missing(everybody)


def test_values_of_another_game_are_named(tokenizer):
    game = WordGame(weigh, tokenizer, TEXT)
    with pytest.raises(ValueError, match=r"values: expected .*\(6,\)"):
        game.explanation(np.ones(5))


def test_several_outputs_and_the_plot(tokenizer):
    def two(ids, attention):
        return torch.stack([weigh(ids, attention), -weigh(ids, attention)], dim=1)

    game = WordGame(two, tokenizer, TEXT)
    values = shapley_values(game, 6)
    assert values.shape == (6, 2)
    explained = game.explanation(values, std=np.abs(values) / 10)
    assert explained.feature_names == game.names
    assert np.allclose(explained.prediction[0], game(np.ones((1, 6), dtype=bool))[0])
    ax = plots.text(explained, output=1, width=20)
    told = plots.table(ax)
    assert told["word"].tolist() == list(game.names)
    assert np.allclose(told["contribution"], values[:, 1])
    assert np.allclose(told["standard error"], np.abs(values[:, 1]) / 10)
    written = [text.get_text() for text in ax.texts]
    assert [text for text in written if not re.match(r"[+-]", text)] == list(game.names)
    # Words stay on the page, each line below the one before, left to right.
    places = [text.get_position() for text in ax.texts if text.get_text() in game.names]
    halves = [(len(name) + 1) / 2 for name in game.names]
    assert all(half <= x <= 20 - half for half, (x, _) in zip(halves, places, strict=True))
    lines = [-y for _, y in places]
    assert lines == sorted(lines) and len(set(lines)) > 1


def test_phrases_end_at_punctuation():
    assert phrases_of([]) == []
    assert phrases_of(["a", "b"]) == [[0, 1]]
    assert phrases_of([".", "a", "!", "?", "b"]) == [[0, 1, 2, 3], [4]]
    words = ["a", ",", "b", "c", ".", "d", "–", "e"]
    assert phrases_of(words) == [[0, 1], [2, 3, 4], [5, 6], [7]]
    # What stands inside words ends nothing.
    assert phrases_of(["don", "'", "t", "well", "-", "known"]) == [[0, 1, 2, 3, 4, 5]]
    with pytest.raises(TypeError, match="words: expected a sequence of words"):
        phrases_of("a, b")
    assert sorted(i for phrase in phrases_of(words) for i in phrase) == list(range(8))


def test_bad_input_is_named(tokenizer):
    class Switched(torch.nn.Module):
        def forward(self, ids, attention):
            return weigh(ids, attention)

    with pytest.raises(ValueError, match=r"model: expected a network in evaluation mode.*eval\(\)"):
        WordGame(Switched(), tokenizer, TEXT)
    assert WordGame(Switched().eval(), tokenizer, TEXT).n_players == 6
    with pytest.raises(ValueError, match="text: expected a text with words"):
        WordGame(weigh, tokenizer, "  ")
    with pytest.raises(TypeError, match="text: expected a text"):
        WordGame(weigh, tokenizer, ["a", "b"])
    with pytest.raises(TypeError, match="tokenizer: expected a fast tokenizer"):
        WordGame(weigh, str.split, TEXT)
    with pytest.raises(ValueError, match="absent: expected"):
        WordGame(weigh, tokenizer, TEXT, absent="blur")
    with pytest.raises(ValueError, match=r"model: expected outputs of shape \(2,\) or \(2, K\)"):
        WordGame(lambda ids, attention: ids.sum(), tokenizer, TEXT)(np.ones((2, 6), dtype=bool))
    with pytest.raises(ValueError, match=r"coalitions: expected a boolean array \(m, 6\)"):
        WordGame(weigh, tokenizer, TEXT)(np.ones((1, 7), dtype=bool))
    with pytest.raises(TypeError, match="model: expected"):
        WordGame("encoder", tokenizer, TEXT)


def test_without_marks_nothing_would_be_left_to_read():
    bare = fast_tokenizer()
    bare.backend_tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="$A", special_tokens=[]
    )
    assert WordGame(weigh, bare, TEXT).n_players == 6
    for absent in ("pad", "delete"):
        with pytest.raises(ValueError, match="absent: expected a tokenizer that adds marks"):
            WordGame(weigh, bare, TEXT, absent=absent)


def test_a_tokenizer_without_a_mask_or_with_a_short_model_is_named():
    with pytest.raises(ValueError, match="text: expected at most 5 tokens, got 9"):
        WordGame(weigh, fast_tokenizer(model_max_length=5), TEXT)
    bare = fast_tokenizer(mask_token=None)
    with pytest.raises(ValueError, match="absent: expected a tokenizer with a mask token"):
        WordGame(weigh, bare, TEXT)
    # The remedies that the message names.
    assert WordGame(weigh, bare, TEXT, absent="delete").n_players == 6
    bare.mask_token = bare.sep_token or bare.eos_token
    assert WordGame(weigh, bare, TEXT).n_players == 6
