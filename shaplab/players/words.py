"""Words as players: a text is a coalition of its words, and a language model says what it is worth.

A tokenizer cuts a text into tokens, words or pieces of them; the pieces of a word are one player.
What it means that a word is absent is a choice, and each choice is another game:

- ``"mask"``: its tokens are replaced by the mask token, so that the model knows that something
  stood there;
- ``"pad"``: its tokens are padding that nobody attends to, the others keep their places;
- ``"delete"``: its tokens are taken out, and what is left moves together; texts of one call that
  are shorter than others end in padding that nobody attends to.

Marks that the tokenizer adds at the ends are always there. Cost: one row of the model for each
coalition.

Chapter: players/words
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from shaplab._validation import check_choice, fail
from shaplab.foundations.games import check_coalitions
from shaplab.players._parts import PartsGame, sums_of_players

__all__ = ["WordGame", "phrases_of"]

ABSENT = ("mask", "pad", "delete")
# What ends a phrase.
PUNCTUATION = '.,;:!?()"–—'


class WordGame(PartsGame):
    """The game of the words of a text, for any explaining function that takes a game.

    Called with coalitions ``(m, n_players)`` it returns the model's outputs ``(m,)`` or ``(m, K)``
    for the texts in which only these words are present, as float64.

    Parameters
    ----------
    model : callable of two int64 tensors ``(m, L)``, token numbers and attention mask (1 where a
        token counts), that returns a tensor ``(m,)`` or ``(m, K)``. A torch module must be in
        evaluation mode: with dropout the same text would have several outputs.
    tokenizer : a fast tokenizer of transformers, which knows the word of each token.
    text : str, the text to explain; at least one word.
    absent : "mask", "pad" or "delete", as above.
    batch_size : int, texts in one call of the model; bounds memory.

    Attributes
    ----------
    names : the words, as they stand in the text, as the tokenizer cuts it: marks of punctuation are
        words, and "don't" may be three; players in this order.
    n_players : int, how many there are.
    ids, absent_ids : int64 tensors ``(1, L)``, the text and what stands for it when all words are
        absent (equal to a text of masks or of padding; for "delete" as for "pad"): row and
        reference for :func:`shaplab.deep.deep_shap.deep_shap`.
    player_of_token : int array ``(L,)``, the word of each token, -1 for tokens that stay.

    Raises
    ------
    ValueError
        For a text without words or longer than the model takes, a tokenizer without the token that
        ``absent`` needs, a model in training mode, and outputs of another shape or with NaN.

    Notes
    -----
    ``explanation(values, std=None, method="")`` makes values of the words an Explanation of one
    row, for ``plots.text``.
    """

    kind = "words"

    def __init__(
        self,
        model: Callable[..., Any],
        tokenizer: Any,
        text: str,
        *,
        absent: str = "mask",
        batch_size: int = 64,
    ) -> None:
        super().__init__(model, batch_size, with_torch=True)
        self.absent = check_choice(absent, "absent", ABSENT)
        self._read(tokenizer, text)

    def _read(self, tokenizer: Any, text: str) -> None:
        """Cut the text into words and tokens."""
        if not getattr(tokenizer, "is_fast", False):
            remedy = "Load one with transformers.AutoTokenizer"
            fail("tokenizer", "a fast tokenizer of transformers", tokenizer, remedy, TypeError)
        if not isinstance(text, str):
            fail("text", "a text", text, "Pass one text; explain several one by one", TypeError)
        encoded = tokenizer(text)
        numbers = encoded["input_ids"]
        longest = getattr(tokenizer, "model_max_length", len(numbers))
        if len(numbers) > longest:
            remedy = "Explain a shorter text"
            fail("text", f"at most {longest} tokens", f"{len(numbers)}", remedy)
        words = [-1 if word is None else word for word in encoded.word_ids(0)]
        self.player_of_token = np.array(words, dtype=int)
        self.n_players = int(self.player_of_token.max(initial=-1)) + 1
        if self.absent != "mask" and self.player_of_token.min(initial=0) >= 0:
            fail(
                "absent",
                f"a tokenizer that adds marks to a text, for {self.absent!r}",
                "one that adds none: without words nothing would be left to read",
                "Take 'mask'",
            )
        if self.n_players == 0:
            fail("text", "a text with words", repr(text), "Pass what the model should read")
        spans = [encoded.word_to_chars(0, word) for word in range(self.n_players)]
        self.names = tuple(text[span.start : span.end] for span in spans)
        self.ids = self.torch.tensor([numbers])
        hidden = self.torch.tensor(self.player_of_token >= 0)[None]
        stands_for = self._token_of_absence(tokenizer)
        self.absent_ids = self.torch.where(hidden, stands_for, self.ids)

    def _token_of_absence(self, tokenizer: Any) -> int:
        kind = "mask" if self.absent == "mask" else "pad"
        number = getattr(tokenizer, f"{kind}_token_id", None)
        if number is None:
            others = [repr(other) for other in ABSENT if other != self.absent]
            fail(
                "absent",
                f"a tokenizer with a {kind} token for {self.absent!r}",
                "one without it",
                f"Take one of {', '.join(others)}, or give the tokenizer one: "
                f"tokenizer.{kind}_token = tokenizer.sep_token or tokenizer.eos_token",
            )
        return int(number)

    def shown(self, present: np.ndarray) -> tuple[Any, ...]:
        return self.texts(present)

    def texts(self, coalitions: np.ndarray) -> tuple[Any, Any]:
        """What the model reads: token numbers and attention mask ``(m, L)`` of coalitions."""
        torch = self.torch
        present = check_coalitions(coalitions, self.n_players)
        stays = self.player_of_token < 0
        is_there = torch.tensor(stays | present[:, self.player_of_token])
        ids = torch.where(is_there, self.ids, self.absent_ids)
        if self.absent == "mask":
            return ids, torch.ones_like(ids)
        attention = is_there.to(torch.int64)
        if self.absent == "pad":
            return ids, attention
        # What is there comes first, in its order.
        order = torch.argsort(1 - attention, dim=1, stable=True)
        length = max(attention.sum(dim=1).tolist(), default=0)
        together = torch.gather(ids, 1, order)[:, :length]
        return together, torch.gather(attention, 1, order)[:, :length]

    def by_word(self, of_tokens: Any) -> np.ndarray:
        """Sums over the tokens of each word, ``(n_players, ...)``, of what belongs to tokens
        ``(L, ...)``: attributions of tokens, for one."""
        found = np.asarray(of_tokens, dtype=np.float64)
        if found.shape[:1] != self.player_of_token.shape:
            fail(
                "of_tokens",
                f"{len(self.player_of_token)} entries, one for each token",
                f"shape {found.shape}",
                "Pass the attributions of one row, such as explanation.values[0]",
            )
        return sums_of_players(found, self.player_of_token, self.n_players)


def phrases_of(words: Any) -> list[list[int]]:
    """Phrases between punctuation, for ``unions=`` and ``groups=``: numbers of words.

    Parameters
    ----------
    words : sequence of texts, such as ``WordGame.names``. A tokenizer that cuts numbers at their
        point makes that a mark of punctuation.

    Returns
    -------
    list of lists of numbers; a mark of punctuation belongs to the phrase that it ends.

    Examples
    --------
    >>> phrases_of(["good", "food", ",", "rude", "staff"])
    [[0, 1, 2], [3, 4]]
    """
    if isinstance(words, str):
        remedy = "Pass a list of words, such as text.split()"
        fail("words", "a sequence of words", words, remedy, TypeError)
    phrases: list[list[int]] = [[]]
    for number, word in enumerate(words):
        ended = phrases[-1] and words[phrases[-1][-1]].strip(PUNCTUATION) == ""
        has_words = any(words[other].strip(PUNCTUATION) for other in phrases[-1])
        if ended and has_words and str(word).strip(PUNCTUATION):
            phrases.append([])
        phrases[-1].append(number)
    return [phrase for phrase in phrases if phrase]
