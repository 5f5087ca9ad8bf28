"""A folder that another program removes is there again, for those only who may enter it."""

import logging
import os
import shutil
from pathlib import Path

import pytest

from worker.runtime.kept_folder import PRIVATE, KeptFolder


@pytest.fixture
def folder(tmp_path: Path) -> KeptFolder:
    """One of sockets."""
    folder = KeptFolder(tmp_path / "temporary" / "nameshot-x", PRIVATE)
    folder.path.mkdir(PRIVATE, parents=True)
    return folder


@pytest.mark.parametrize("with_its_parent", [False, True])
def test_a_folder_that_was_removed_is_created_again_for_this_user_alone(
    with_its_parent: bool, folder: KeptFolder, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.rmtree(folder.path.parent if with_its_parent else folder.path)

    for _ in range(3):
        folder.restore()

    assert folder.path.stat().st_mode & 0o777 == PRIVATE
    assert [record.getMessage() for record in caplog.records] == [
        f"the folder {folder.path} was removed: created it again"
    ]


@pytest.mark.parametrize("of_another_user", [False, pytest.param(True, marks=pytest.mark.skipif("os.geteuid() != 0"))])
def test_what_another_user_put_into_its_place_is_not_used_and_said_once(
    of_another_user: bool, folder: KeptFolder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A link leads where its owner wants, even if it is this user's."""
    if of_another_user:
        os.chown(folder.path, 12345, 12345)
    else:
        folder.path.rmdir()
        folder.path.symlink_to(tmp_path)

    for _ in range(3):
        folder.restore()
    assert [record.getMessage() for record in caplog.records] == [
        f"the folder {folder.path} cannot be used (it is not a folder of this user) or created again; trying again"
    ]

    shutil.rmtree(folder.path) if of_another_user else folder.path.unlink()
    folder.restore()
    assert folder.path.stat().st_uid == os.geteuid()


def test_a_folder_that_cannot_be_created_yet_is_tried_again(
    folder: KeptFolder, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.rmtree(folder.path.parent)
    folder.path.parent.touch()
    for _ in range(3):
        folder.restore()
    assert [record.levelno for record in caplog.records] == [logging.ERROR]

    folder.path.parent.unlink()
    folder.restore()
    assert folder.path.is_dir()
