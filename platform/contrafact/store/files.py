"""Content-addressed files over fsspec: the name of a file is the sha256 of what is in it."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import uuid
from pathlib import Path

import fsspec

from contrafact.errors import UserError

_HASH = re.compile(r"[0-9a-f]{64}")


class Files:
    """Files under an fsspec address (``file:///...``, ``s3://...``), as ``<aa>/<aabb...>``.

    A file is written under a temporary name and moved, so a name that exists holds the whole content. Raises
    UserError where the address cannot be used.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        try:
            self._system, self._root = fsspec.core.url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise UserError(f"Files cannot be kept at '{url}': {error}.", hint="Check CONTRAFACT_FILES_URL.") from error

    def put(self, content: bytes) -> str:
        """Keeps the content and returns its hash; what is there already is not written again."""
        sha256 = hashlib.sha256(content).hexdigest()
        target = self._path(sha256)
        try:
            if not self._system.exists(target):
                folder = target.rsplit("/", 1)[0]
                self._system.makedirs(folder, exist_ok=True)
                draft = f"{folder}/draft-{uuid.uuid4().hex}"
                self._system.pipe_file(draft, content)
                self._system.mv(draft, target)
        except OSError as error:
            raise UserError(
                f"A file cannot be written to {self.url}: {error.strerror or error}.", hint="Check CONTRAFACT_FILES_URL."
            ) from error
        return sha256

    def get(self, sha256: str) -> bytes:
        """The content. Raises UserError where it is missing, or is not what its name says."""
        try:
            content: bytes = self._system.cat_file(self._path(sha256))
        except FileNotFoundError:
            raise UserError(
                f"The file {sha256[:12]} is missing from {self.url}.", hint="Restore the folder from a copy."
            ) from None
        except OSError as error:
            raise UserError(
                f"Files at {self.url} cannot be read: {error.strerror or error}.", hint="Check CONTRAFACT_FILES_URL."
            ) from error
        if hashlib.sha256(content).hexdigest() != sha256:
            raise UserError(
                f"The file {sha256[:12]} in {self.url} is damaged: its content is not what its name says.",
                hint="Delete it and run the study again.",
            )
        return content

    def put_folder(self, folder: Path) -> str:
        """Keeps every file of a folder and returns the hash of a sorted JSON listing (path to hash)."""
        listing = {
            file.relative_to(folder).as_posix(): self.put(file.read_bytes())
            for file in sorted(folder.rglob("*"))
            if file.is_file()
        }
        return self.put(json.dumps(listing, sort_keys=True).encode())

    def get_folder(self, sha256: str, into: Path) -> Path:
        """Writes a kept folder as ``into``, which then holds nothing else, and returns it."""
        listing = json.loads(self.get(sha256))
        draft = into.with_name(f"{into.name}.draft")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        for name, content in listing.items():
            target = draft / name
            if not target.resolve().is_relative_to(draft.resolve()):
                raise UserError(f"The folder {sha256[:12]} names a file outside itself ({name}).")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(self.get(content))
        shutil.rmtree(into, ignore_errors=True)
        draft.rename(into)
        return into

    def _path(self, sha256: str) -> str:
        if not _HASH.fullmatch(sha256):
            raise ValueError(f"not a sha256 in 64 hex digits: {sha256!r}")
        return f"{self._root}/{sha256[:2]}/{sha256}"
