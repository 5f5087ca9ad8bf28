"""The parts of the comparison with peers that need no peer."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.memory import family, resident_bytes
from benchmarks.peers.contenders import HttpPeer
from benchmarks.peers.environment import STAMP, environment
from benchmarks.peers.failure import PeerFailed
from benchmarks.peers.reference import compare
from benchmarks.session import Place, session


def test_rankings_whose_scores_differ_by_less_than_a_thousandth_are_equal() -> None:
    compare({"owl": 0.7005, "fox": 0.2995}, {"owl": 0.7, "fox": 0.3})


@pytest.mark.parametrize(
    "answer", [{"owl": 0.702, "fox": 0.298}, {"fox": 0.3, "owl": 0.7}, {"owl": 0.7}, {"owl": 0.7, "fix": 0.3}]
)
def test_rankings_with_other_scores_orders_or_labels_are_not_equal(answer: dict[str, float]) -> None:
    with pytest.raises(PeerFailed):
        compare(answer, {"owl": 0.7, "fox": 0.3})


def test_the_family_of_a_program_includes_descendants_in_their_own_sessions() -> None:
    grandchild = "import sys; print('ready', flush=True); sys.stdin.read()"
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {grandchild!r}], start_new_session=True)"
    with subprocess.Popen(
        [sys.executable, "-c", child], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()

        pids = family(process.pid)

        assert process.pid in pids
        assert len(pids) == 2
        assert resident_bytes(process.pid) > 1_000_000
        process.communicate()


def test_an_environment_is_made_once_and_finds_our_packages_after_its_own(tmp_path: Path) -> None:
    (tmp_path / "peer.txt").write_text("# nothing of its own\n")

    python = environment("peer", tmp_path / "venvs", requirements=tmp_path)

    asked = "import requests, sys; print(sys.prefix); print(requests.__file__)"
    prefix, found = subprocess.run([python, "-c", asked], capture_output=True, text=True, check=True).stdout.split()
    assert Path(prefix) == tmp_path / "venvs" / "peer"
    assert not Path(found).is_relative_to(prefix)
    made = (tmp_path / "venvs" / "peer" / STAMP).stat().st_mtime_ns
    assert environment("peer", tmp_path / "venvs", requirements=tmp_path) == python
    assert (tmp_path / "venvs" / "peer" / STAMP).stat().st_mtime_ns == made


def test_a_failed_installation_is_reported_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "peer.txt").write_text("./no-such-package\n")

    with pytest.raises(PeerFailed, match=r"cannot be created: .*no-such-package"):
        environment("peer", tmp_path / "venvs", requirements=tmp_path)


def test_a_peer_that_does_not_start_says_why(tmp_path: Path) -> None:
    peer = HttpPeer("absent", "a program that is not there", command=("no_such_program",))

    with (
        pytest.raises(PeerFailed, match="No module named no_such_program"),
        session(peer, Place(tmp_path, 1, tmp_path), ["owl"], print),
    ):
        pass
