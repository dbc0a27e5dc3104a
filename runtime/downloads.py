"""Datasets of IDX files, downloaded by the manager of TensorFlow Datasets, without TensorFlow."""

import os
import shutil
import subprocess
import sys
import urllib.parse
from pathlib import Path


class NotAvailable(Exception):
    """Files that can't be downloaded here and now, and why."""


def downloads_folder() -> Path:
    """Where TensorFlow Datasets keeps its downloads. Raises NotAvailable where there is no home."""
    home = os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    try:
        return Path(home).expanduser() / "downloads"
    except RuntimeError as error:
        reason = f"no home folder to download to ({error}); set TFDS_DATA_DIR"
        raise NotAvailable(reason) from error


def download(name: str, title: str, url_infos: dict | None = None) -> Path:
    """Download the files of TensorFlow Datasets' dataset `name`. Returns their folder.

    title: the dataset's name for the reader. url_infos: where the files are and their checksums, by
    default those that TensorFlow Datasets registers. An interrupted download leaves only a
    temporary folder, which the next one removes. Raises NotAvailable.
    """
    folder = downloads_folder() / name
    try:
        if url_infos is None:
            url_infos = registered_files(name)
        check_connection(next(iter(url_infos)))  # the download manager would retry for minutes
        megabytes = sum(info.size for info in url_infos.values()) / 1e6
        what = f"{title} ({megabytes:.0f} MB)"
        print(f"note: downloading {what} through TensorFlow Datasets", file=sys.stderr)
        fetch(name, url_infos, folder)
    except NotAvailable:
        raise
    except Exception as error:  # of requests, urllib3, tensorflow_datasets or the system
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise NotAvailable(f"TensorFlow Datasets failed ({reason})") from error
    return folder


def registered_files(name: str) -> dict:
    """The dataset's files as TensorFlow Datasets knows them: URL -> size, checksum, file name."""
    import tensorflow_datasets as tfds

    return tfds.builder(name, data_dir=str(downloads_folder().parent)).url_infos


def fetch(name: str, url_infos: dict, folder: Path) -> None:
    """Put the files into `folder`, each complete or not at all."""
    import tensorflow_datasets as tfds

    cache = folder / "cache"
    for abandoned in list(cache.rglob("*.tmp.*")):
        shutil.rmtree(abandoned)
    cache.mkdir(parents=True, exist_ok=True)
    manager = tfds.download.DownloadManager(
        download_dir=cache, url_infos=url_infos, dataset_name=name
    )
    downloaded = manager.download({info.filename: url for url, info in url_infos.items()})
    for file_name, path in downloaded.items():
        partial = folder / f"{file_name}.partial"
        shutil.copyfile(path, partial)
        partial.replace(folder / file_name)


def check_connection(url: str, seconds: float = 10) -> None:
    """Raise NotAvailable unless `url` answers within `seconds`.

    In a process of its own, which can be ended: the system's look-up of a name heeds no timeout.
    """
    program = """if True:
        import sys, urllib.request
        request = urllib.request.Request(sys.argv[1], method="HEAD")
        urllib.request.urlopen(request, timeout=60)
    """
    command = [sys.executable, "-c", program, url]
    try:
        subprocess.run(command, timeout=seconds, check=True, capture_output=True)
        return
    except subprocess.TimeoutExpired:
        reason = f"no answer in {seconds} s"
    except subprocess.CalledProcessError as error:
        lines = error.stderr.decode(errors="replace").strip().splitlines()
        reason = lines[-1] if lines else f"status {error.returncode}"
    except OSError as error:  # no process can be started
        reason = str(error)
    raise NotAvailable(f"no connection to {urllib.parse.urlsplit(url).hostname} ({reason})")
