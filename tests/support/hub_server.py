"""The Hugging Face Hub on the loopback interface, as far as its client needs it to make, fill and
delete a model repository; it remembers what it holds.

`refusals` makes it answer an address with an error instead.
"""

import base64
import hashlib
import json
import re
from dataclasses import dataclass, field
from typing import Any

from typing_extensions import override

from tests.support.loopback import JsonHandler, LoopbackServer

USER = "researcher"
TOKEN = "hf_" + "c0ffee" * 5


@dataclass
class Repository:
    """A repository as the server holds it.

    Attributes:
        visibility: private or public.
        commits: Title of every commit, oldest first.
        files: Path -> content after the last commit.
    """

    visibility: str
    commits: list[str] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)


class HubServer(LoopbackServer):
    """The server; use `running`.

    Attributes:
        repositories: OWNER/NAME -> repository.
        objects: SHA-256 -> content of every large file that was uploaded.
        requests: (method, path, body) of everything that was received.
        refusals: Pattern of METHOD PATH -> (code, message) that it is answered with.
        unknown: METHOD PATH that the server does not speak.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.objects: dict[str, bytes] = {}
        self.requests: list[tuple[str, str, bytes]] = []
        self.refusals: dict[str, tuple[int, str]] = {}
        self.unknown: list[str] = []
        super().__init__(_Handler)

    def environment(self) -> dict[str, str]:
        """Return the variables with which the client speaks to this server."""
        return {
            "HF_ENDPOINT": self.url,
            "HF_TOKEN": TOKEN,
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",  # large files go by LFS: Xet's store is another server
        }

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        """Return status and content for a request."""
        for pattern, (code, message) in self.refusals.items():
            if re.search(pattern, f"{method} {path}"):
                return code, {"error": message}
        if path == "/api/whoami-v2":
            return 200, {"name": USER, "type": "user"}
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if path == "/api/repos/delete":
            asked = json.loads(body)
            name = f"{asked.get('organization') or USER}/{asked['name']}"
            found = self.repositories.pop(name, None)
            return (200, {}) if found else (404, {"error": "Repository not found"})
        if match := re.fullmatch(r"/(\S+)\.git/info/lfs/objects/batch", path):
            return self._batch(json.loads(body))
        if match := re.fullmatch(r"/lfs/(\w+)", path):
            assert hashlib.sha256(body).hexdigest() == match[1]
            self.objects[match[1]] = body
            return 200, {}
        match = re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(preupload|commit)/main)?", path)
        if match is None:
            self.unknown.append(f"{method} {path}")
            return 404, {"error": "not spoken"}
        repository = self.repositories.get(match[1])
        if repository is None:
            return 404, {"error": "Repository not found"}
        if match[2] == "preupload":
            return self._preupload(json.loads(body))
        if match[2] == "commit":
            return self._commit(match[1], body)
        return 200, {"id": match[1], "modelId": match[1], "private": True, "tags": []}

    def _create(self, asked: dict[str, Any]) -> tuple[int, Any]:
        name = f"{asked.get('organization') or USER}/{asked['name']}"
        if name in self.repositories:
            return 409, {"error": "You already created this model repo"}
        visibility = str(asked.get("visibility") or "public")
        self.repositories[name] = Repository(visibility=visibility)
        return 200, {"url": f"{self.url}/{name}", "name": name}

    def _preupload(self, asked: dict[str, Any]) -> tuple[int, Any]:
        return 200, {
            "files": [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                    "shouldIgnore": False,
                }
                for file in asked["files"]
            ]
        }

    def _batch(self, asked: dict[str, Any]) -> tuple[int, Any]:
        objects = [
            {
                "oid": each["oid"],
                "size": each["size"],
                "actions": {"upload": {"href": f"{self.url}/lfs/{each['oid']}"}},
            }
            for each in asked["objects"]
        ]
        return 200, {"transfer": "basic", "objects": objects}

    def _commit(self, name: str, body: bytes) -> tuple[int, Any]:
        repository = self.repositories[name]
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "header":
                repository.commits.append(value["summary"])
            elif line["key"] == "file":
                assert value["encoding"] == "base64"
                repository.files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                repository.files[value["path"]] = self.objects[value["oid"]]
        oid = hashlib.sha1(body, usedforsecurity=False).hexdigest()
        return 200, {"commitUrl": f"{self.url}/{name}/commit/{oid}", "commitOid": oid}


class _Handler(JsonHandler):
    owner: HubServer

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts: list[bytes] = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    @override
    def serve(self) -> None:
        method, body = self.command, self._body()
        path = self.path.partition("?")[0]
        self.owner.requests.append((method, path, body))
        is_ours = path.startswith("/lfs/") or self.headers.get("Authorization") == f"Bearer {TOKEN}"
        code, content = (
            self.owner.answer(method, path, body)
            if is_ours
            else (401, {"error": "Invalid credentials in Authorization header"})
        )
        is_unknown = code == 404 and content.get("error") == "Repository not found"
        headers = {"X-Error-Code": "RepoNotFound"} if is_unknown else {}
        self.reply(content, code=code, headers=headers)
