"""Hostile files against a real server, at every trust level: no payload has an effect, and the server goes on."""

from __future__ import annotations

import hashlib
import pickle
import subprocess
import sys
import threading
import warnings

import hostile_corpus
import hostile_formats
import pytest
import skops.io
from e2e import servers

LEVELS = ("data", "allowlist", "pinned", "any")
ROW = {"features": [5.1, 3.5, 1.4, 0.2]}
MAY_LOAD = {"any", "pinned"}
"""Levels at which a file is loaded because somebody vouches for it: its code then runs, confined."""

LOAD_UNCONFINED = """
import io, os, signal, sys, warnings
from pathlib import Path
import joblib, numpy, sklearn.linear_model
warnings.simplefilter("ignore")
marker, folder = Path(sys.argv[1]), Path(sys.argv[2])
for path in sorted(folder.iterdir()):
    pid = os.fork()
    if pid == 0:
        signal.alarm(20)
        for stream in (1, 2):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
        try:
            if path.name.startswith("skops-call"):
                import skops.io
                skops.io.load(path, trusted=skops.io.get_untrusted_types(file=path)).transform([[1.0]])
            elif path.name.startswith("npy"):
                numpy.load(path, allow_pickle=True)
            elif path.suffix == ".py" or path.name.startswith("text"):
                exec(path.read_bytes())
            else:
                joblib.load(path)
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    if marker.exists():
        marker.unlink()
        print(path.name, flush=True)
"""
"""A victim: it loads each file as everybody does, in a fork, and prints which of them touched the marker."""

NEVER_RUNS = {"short FRAME", "stacked", "re-export of os", "re-export of joblib"}
"""What the installed readers and scikit-learn do not fall for; others would, and other versions have."""

AS_DANGEROUS_AS_THEY_SAY = [
    *(
        f"pickle-{name}.pkl"
        for group in ("direct calls", "indirections", "streams")
        for name in hostile_corpus.NAMED[group]
        if name not in NEVER_RUNS
    ),
    *(
        f"pickle-{name}.pkl"
        for name in (
            "old posix.system", "python 2 builtins", "open", "io.open", "_io.FileIO", "pathlib", "pty",
            "subprocess.Popen", "INST", "OBJ", "logging config", "numpy.memmap", "memmap by NEWOBJ", "numpy.savetxt",
            "nested _pickle.loads", "map", "constructor given to a listed function", "another constructor",
            "memo trick", "scipy exec", "stacked hostile first", "call and no end", "protocol 0",
        )
    ),
    "skops-call-that-writes", "skops-pickle", "class.py", "text.joblib", "npy-objects",
]  # fmt: skip
"""Payloads that must touch the marker when nothing is in their way, or the corpus would prove nothing."""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """The marker that payloads would touch, and the hostile files by name."""
    folder = tmp_path_factory.mktemp("hostile")
    marker = folder / "marker"
    return marker, hostile_corpus.build(folder, marker)


@pytest.fixture
def good(tmp_path):
    path = tmp_path / "good.skops"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        skops.io.dump(hostile_formats.fitted(), path)
    return path


def test_every_attack_that_the_survey_names_is_in_the_corpus(corpus):
    pickles = [f"pickle-{name}.pkl" for group in hostile_corpus.NAMED.values() for name in group]
    named = [*pickles, *hostile_corpus.NAMED_FILES]

    assert [name for name in named if name not in corpus[1]] == []
    assert len(corpus[1]) >= 200


@pytest.mark.parametrize("level", LEVELS)
def test_no_hostile_file_has_an_effect_and_the_server_goes_on(level, corpus, good, tmp_path):
    marker, paths = corpus
    pins = [digest_of(path) for path in [*paths.values(), good] if path.is_file()] if level == "pinned" else []
    current = tmp_path / "current"
    point(current, good)
    environ = {
        "FITSERVE_TRUST": level,
        "FITSERVE_PIN": ",".join(pins),
        "FITSERVE_LOAD_TIMEOUT_S": "5",
        "FITSERVE_CONFINE": "require",
        "FITSERVE_OPTIMIZE": "off",  # `make qa` has the time to compile what is accepted
    }
    accepted = {}
    with servers.running("fitserve", current, tmp_path, **environ) as (client, process, log):
        workers = servers.children(process.pid)
        expected = client.post("/predict", json=ROW).json()["probabilities"]
        for name, path in paths.items():
            point(current, path)
            reply = client.post("/model/reload?wait=true")
            assert not marker.exists(), name
            assert process.poll() is None, (name, log.read_text()[-2000:])
            assert servers.children(process.pid) == workers, name
            assert reply.status_code in {200, 422}, (name, reply.text)
            assert client.get("/health").status_code == 200, name
            if reply.status_code == 200:
                accepted[name] = reply.json()
                client.post("/predict", json=ROW)
                assert not marker.exists(), name
                point(current, good)
                assert client.post("/model/reload?wait=true").status_code == 200, name
            assert client.post("/predict", json=ROW).json()["probabilities"] == expected, name

    if level not in MAY_LOAD:
        assert accepted == {}
    assert not [name for name in accepted if name.startswith(("package", "external", "manifest", "native", "onnx"))]


def test_the_payloads_do_what_they_threaten_where_nothing_confines_them(tmp_path):
    folder = tmp_path / "files"
    folder.mkdir()
    marker = tmp_path / "marker"
    for name, path in hostile_corpus.build(tmp_path, marker).items():
        if name in AS_DANGEROUS_AS_THEY_SAY:
            path.rename(folder / path.name)

    victim = [sys.executable, "-c", LOAD_UNCONFINED, str(marker), str(folder)]
    told = subprocess.run(victim, cwd=tmp_path, check=True, capture_output=True, text=True, timeout=120).stdout

    assert set(AS_DANGEROUS_AS_THEY_SAY) == set(told.splitlines())


def test_a_file_that_is_swapped_between_check_and_load_is_never_what_serves(good, tmp_path):
    marker = tmp_path / "marker"
    hostile = pickle.dumps(hostile_formats.Touch(marker))
    files = [good.read_bytes(), hostile, skops.io.dumps(hostile_formats.fitted(C=0.001))]
    current, stop = tmp_path / "current", threading.Event()
    point(current, good)

    def swap():
        """Other contents by renaming, and by writing over the same file, as fast as the disk takes them."""
        path, n = tmp_path / "over.skops", 0
        while not stop.is_set():
            n += 1
            path.write_bytes(files[n % 3])
            point(current, path if n % 2 else good)

    statuses, answers = [], []
    with servers.running("fitserve", current, tmp_path, FITSERVE_PIN=digest_of(good)) as (client, process, _):
        expected = client.post("/predict", json=ROW).json()["probabilities"]
        swapper = threading.Thread(target=swap)
        swapper.start()
        try:
            for _ in range(150):
                statuses.append(client.post("/model/reload?wait=true").status_code)
                answers.append(client.post("/predict", json=ROW).json()["probabilities"])
        finally:
            stop.set()
            swapper.join()
        assert process.poll() is None

    assert set(statuses) == {200, 422}
    assert [answer for answer in answers if answer != expected] == []
    assert not marker.exists()


@pytest.mark.parametrize("level", LEVELS[1:])
def test_what_is_harmless_is_served(level, good, tmp_path):
    current = tmp_path / "current"
    folder = tmp_path / "harmless"
    folder.mkdir()
    point(current, good)
    with servers.running("fitserve", current, tmp_path, FITSERVE_TRUST=level) as (client, _, log):
        for name, path in hostile_corpus.controls(folder).items():
            point(current, path)

            reply = client.post("/model/reload?wait=true")

            assert reply.status_code == 200, (name, reply.text, log.read_text()[-2000:])


def digest_of(path) -> str:
    return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


def point(link, target) -> None:
    """Let a link lead to another file, at once, as a deployment does."""
    fresh = link.with_name("fresh")
    fresh.symlink_to(target)
    fresh.replace(link)
