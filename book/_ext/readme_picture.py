"""The picture of README: one prediction taken apart, and all of them at once.

    make picture       writes book/_static/first_look.png

The model is that of the start page. The background is white, so that the picture can be read on
pages of any colour.
"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import matplotlib
from PIL import Image
from sklearn.datasets import load_diabetes
from sklearn.ensemble import RandomForestRegressor

import shaplab

__all__ = ["draw"]

PLACE = Path(__file__).resolve().parents[1] / "_static" / "first_look.png"
NAMES = {"bmi": "body mass index", "bp": "blood pressure", "s5": "triglycerides (log)"}
NAMES |= {"s6": "blood sugar", "s1": "cholesterol", "s2": "LDL", "s3": "HDL", "s4": "chol. / HDL"}


def draw(target: Path) -> None:
    """Explain the forest of the start page and draw two pictures side by side."""
    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    people = load_diabetes(as_frame=True, scaled=False)
    table = people.data.rename(columns=NAMES)
    forest = RandomForestRegressor(100, random_state=0).fit(table, people.target)
    explained = shaplab.tree_shap(forest, table)
    with plt.rc_context({"font.size": 9}):
        figure, (one, everybody) = plt.subplots(1, 2, figsize=(10.4, 3.6), layout="constrained")
        shaplab.plots.waterfall(explained[0], output_unit="score", max_features=7, ax=one)
        shaplab.plots.beeswarm(explained, output_unit="score", max_features=7, ax=everybody)
        titles = {one: "What moved this prediction?", everybody: "What moves them all?"}
        for panel, title in titles.items():
            panel.set_title(title, loc="left", fontweight="bold", pad=20)
        drawn = BytesIO()
        figure.savefig(drawn, dpi=120, facecolor="white")
        plt.close(figure)
    # A palette keeps the file small; 128 colours are more than the eye tells apart here.
    Image.open(drawn).convert("RGB").quantize(128).save(target, optimize=True)


if __name__ == "__main__":
    draw(PLACE)
    print(f"{PLACE}: {PLACE.stat().st_size / 1e3:.0f} kB")
