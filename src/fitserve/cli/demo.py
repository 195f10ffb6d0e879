"""``fitserve demo``: train a model on real data and serve it."""

from __future__ import annotations

import multiprocessing
import shutil
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from fitserve.cli import refuse
from fitserve.cli.options import with_settings
from fitserve.cli.run import serve_forever
from fitserve.errors import FitserveError, SettingsError
from fitserve.settings import read_settings

if TYPE_CHECKING:
    from rich.console import Console

COMMAND = typer.Typer()

HELD_OUT = 30


@COMMAND.command()
@with_settings()
def demo(*, flags: dict[str, Any]) -> None:
    """Train a model on real data and serve it."""
    from rich.console import Console

    console = Console()
    folder = Path(tempfile.mkdtemp(prefix="fitserve-demo-"))
    try:
        # In a process of its own: this one is to be confined before a numeric library starts threads in it.
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as other:
            path, told = other.submit(train, folder).result()
        console.print(told)
        _serve(path, flags, console)
    except FitserveError as exc:
        raise refuse(exc) from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _serve(path: Path, flags: dict[str, Any], console: Console) -> None:
    settings, origins = read_settings({**flags, "model_path": path})
    try:
        serve_forever(settings, shows_card=True, removes=(path.parent,))
    except SettingsError as exc:
        # A demonstration need not fail because something else runs on the usual port.
        if "in use" not in str(exc) or origins["port"] != "default":
            raise
        console.print(f"Port {settings.port} is in use; taking another.")
        serve_forever(settings.model_copy(update={"port": 0}), shows_card=True, removes=(path.parent,))


def train(folder: Path) -> tuple[Path, str]:
    """Fit a pipeline on Fisher's iris data and save it as any notebook would.

    Returns:
        The file, and what is to be said of it.
    """
    import joblib
    from sklearn.datasets import load_iris
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import train_test_split
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    iris = load_iris()
    names = [name.removesuffix(" (cm)").replace(" ", "_") + "_cm" for name in iris.feature_names]
    species = iris.target_names[iris.target]
    X, X_held_out, y, y_held_out = train_test_split(
        iris.data, species, test_size=HELD_OUT, random_state=0, stratify=species
    )
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(_named(X, names), y)
    accuracy = model.score(_named(X_held_out, names), y_held_out)
    path = folder / "iris_v1.0.0.joblib"
    joblib.dump(model, path)
    return path, (
        f"Trained a scikit-learn pipeline on {len(X)} iris flowers; it names {accuracy:.0%} of {HELD_OUT} others "
        f"rightly.\nSaved as {path.name}, and now served from there.\n"
    )


def _named(X: Any, names: list[str]) -> Any:
    """Give the columns their names if pandas is here; without it they are called x0, x1 and so on."""
    try:
        import pandas as pd
    except ModuleNotFoundError:
        return X
    return pd.DataFrame(X, columns=names)
