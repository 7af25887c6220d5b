"""A W&B server on the loopback interface that speaks what the real client needs, and remembers.

GraphQL for runs, files, artifacts, views and charts, the stream of history and summary, and a
store for uploaded files. It keeps every request whole, so that a test can look for what must not be
in one. `failure` makes it answer 500 or drop connections instead.
"""

import base64
import gzip
import json
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Literal

from typing_extensions import override

from tests.support.loopback import JsonHandler, LoopbackServer

ENTITY = "researcher"
API_KEY = "c0ffee" * 6 + "abcd"

Failure = Literal["none", "500", "drop"]


@dataclass
class Stored:
    """One run as the server holds it.

    Attributes:
        upsert: The latest variables of UpsertBucket: groupName, jobType, tags, config, ...
        history: Offset -> row.
        summary: The latest summary.
        exit_code: Of the finished run.
    """

    upsert: dict[str, Any] = field(default_factory=dict)
    history: dict[int, dict[str, Any]] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    exit_code: int | None = None

    @property
    def config(self) -> dict[str, Any]:
        return json.loads(self.upsert.get("config") or "{}")

    def rows(self) -> list[dict[str, Any]]:
        return [self.history[offset] for offset in sorted(self.history)]


class WandbServer(LoopbackServer):
    """The server; use `running`.

    Attributes:
        runs: W&B id -> run.
        files: Name below the run -> content of every uploaded file.
        artifacts: Variables of every CreateArtifact.
        views: Id -> variables of the last UpsertView2.
        reports: Id -> variables of the last upsertView.
        charts: Variables of every CreateCustomChart.
        sweeps: Id -> variables of UpsertSweep.
        jobs: What agents are told to run, one a heartbeat.
        requests: (path, headers without authorization, body) of everything that was received.
        operations: How often each GraphQL operation was asked.
        failure: none, 500 or drop.
    """

    def __init__(self) -> None:
        self.runs: dict[str, Stored] = {}
        self.files: dict[str, bytes] = {}
        self.artifacts: list[dict[str, Any]] = []
        self.views: dict[str, dict[str, Any]] = {}
        self.reports: dict[str, dict[str, Any]] = {}
        self.charts: list[dict[str, Any]] = []
        self.sweeps: dict[str, dict[str, Any]] = {}
        self.jobs: list[dict[str, Any]] = []
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.operations: Counter[str] = Counter()
        self.unknown: list[tuple[str, Any]] = []
        self.failure: Failure = "none"
        super().__init__(_Handler)

    def environment(self) -> dict[str, str]:
        """Return the variables with which the client speaks to this server."""
        return {"WANDB_BASE_URL": self.url, "WANDB_API_KEY": API_KEY, "WANDB_MODE": "online"}

    def stream(self, run_id: str, body: dict[str, Any]) -> None:
        run = self.runs.setdefault(run_id, Stored())
        for name, part in (body.get("files") or {}).items():
            lines = [json.loads(line) for line in part["content"]] if "json" in name else []
            if name == "wandb-history.jsonl":
                if part["offset"] == 0:  # the stream begins anew: what was there is written over
                    run.history = {}
                run.history |= {part["offset"] + n: line for n, line in enumerate(lines)}
            if name == "wandb-summary.json" and lines:
                run.summary = lines[-1]
        if body.get("complete"):
            run.exit_code = body.get("exitcode")

    def answer(self, operation: str, variables: dict[str, Any], query: str) -> dict[str, Any]:
        self.operations[operation] += 1
        method = getattr(self, f"_{operation}", None)
        if method is not None:
            return method(variables)
        self.unknown.append((operation, [variables, query]))
        return {}

    def _UpsertBucket(self, v: dict[str, Any]) -> dict[str, Any]:  # noqa: N802 - GraphQL's name
        run = self.runs.setdefault(v["name"], Stored())
        inserted = not run.upsert
        run.upsert |= {key: value for key, value in v.items() if value is not None}
        project = {"id": "UHI=", "name": v.get("project"), "entity": {"id": "RQ=", "name": ENTITY}}
        bucket = {
            "id": f"run-{v['name']}",
            "name": v["name"],
            "displayName": v.get("displayName") or v["name"],
            "description": None,
            "config": None,
            "sweepName": v.get("sweep"),
            "historyLineCount": 0,
            "project": project,
        }
        return {"upsertBucket": {"bucket": bucket, "inserted": inserted}}

    def _Viewer(self, v: dict[str, Any]) -> dict[str, Any]:  # noqa: N802 - GraphQL's name
        viewer = {"id": "VQ=", "entity": ENTITY, "username": ENTITY, "email": "", "flags": "{}"}
        return {"viewer": {**viewer, "teams": {"edges": []}}}

    def _GetDefaultEntity(self, v: dict[str, Any]) -> dict[str, Any]:  # noqa: N802 - as above
        return {"viewer": {"id": "VQ=", "entity": ENTITY}}

    def _Run(self, v: dict[str, Any]) -> dict[str, Any]:  # noqa: N802 - as above
        run = self.runs.get(v["name"])
        if run is None or run.upsert.get("project") != v["project"]:
            return {"project": {"run": None}}
        known = {
            "projectId": "1",
            "id": f"run-{v['name']}",
            "name": v["name"],
            "displayName": run.upsert.get("displayName"),
            "tags": run.upsert.get("tags") or [],
            "state": "running" if run.exit_code is None else "finished",
            "config": run.upsert.get("config"),
            "group": run.upsert.get("groupName"),
            "jobType": run.upsert.get("jobType"),
            "summaryMetrics": json.dumps(run.summary),
            "systemMetrics": "{}",
            "historyLineCount": len(run.history),
            "historyKeys": {"lastStep": max((row["_step"] for row in run.rows()), default=-1)},
            "user": {"name": ENTITY, "username": ENTITY},
        }
        return {"project": {"run": known}}

    def _RunHistoryKeys(self, v: dict[str, Any]) -> dict[str, Any]:  # noqa: N802 - as above
        return self._Run(v)

    def _CreateCustomChart(self, v: dict[str, Any]) -> dict[str, Any]:  # noqa: N802 - as above
        self.charts.append(v)
        return {"createCustomChart": {"chart": {"id": f"{v['entity']}/{v['chartName']}"}}}

    def _View(self, v: dict[str, Any]) -> dict[str, Any]:  # noqa: N802 - as above
        nodes = [
            {"id": id_, "displayName": view["displayName"], "spec": view["spec"]}
            for id_, view in self.views.items()
            if (view["projectName"], view["name"]) == (v["projectName"], v["viewName"])
        ]
        return {"project": {"allViews": {"edges": [{"node": node} for node in nodes]}}}

    def _UpsertView2(self, v: dict[str, Any]) -> dict[str, Any]:  # noqa: N802 - as above
        id_ = v.get("id") or f"view-{len(self.views) + 1}"
        inserted = id_ not in self.views
        self.views[id_] = v
        return {"upsertView": {"view": {"id": id_, "name": v["name"]}, "inserted": inserted}}

    def _projects(self) -> list[str]:
        names = {run.upsert["project"] for run in self.runs.values() if run.upsert}
        return sorted(names)

    def _GetProjects(self, v: dict[str, Any]) -> dict[str, Any]:  # noqa: N802 - as above
        about = {"id": "UHI=", "entityName": ENTITY, "isBenchmark": False, "user": None}
        about["createdAt"] = "2026-01-01T00:00:00"
        edges = [{"node": {**about, "name": name}} for name in self._projects()]
        page = {"endCursor": None, "hasNextPage": False}
        return {"models": {"edges": edges, "pageInfo": page}}

    def _ProjectInternalId(self, v: dict[str, Any]) -> dict[str, Any]:  # noqa: N802 - as above
        known = v["projectName"] in self._projects()
        return {"project": {"id": "UHI=", "internalId": "UHI="} if known else None}

    def _ProjectViews(self, v: dict[str, Any]) -> dict[str, Any]:  # noqa: N802 - as above
        nodes = [
            {
                **{key: view[key] for key in ("name", "displayName", "description", "spec")},
                "id": id_,
            }
            for id_, view in self.reports.items()
            if view["projectName"] == v["project"] and view["type"] == v.get("viewType", "runs")
        ]
        page = {"endCursor": None, "hasNextPage": False}
        views = {"edges": [{"node": node, "cursor": ""} for node in nodes], "pageInfo": page}
        return {"project": {"allViews": views}}

    def _upsertView(self, v: dict[str, Any]) -> dict[str, Any]:  # noqa: N802 - as above
        id_ = v.get("id") or base64.b64encode(f"View:{len(self.reports) + 1}".encode()).decode()
        inserted = id_ not in self.reports
        self.reports[id_] = v
        project = {"id": "UHI=", "name": v["projectName"], "entityName": v["entityName"]}
        view = {**v, "id": id_, "project": project, "updatedAt": "2026-01-01T00:00:00"}
        return {"upsertView": {"view": view, "inserted": inserted}}

    def _ArtifactType(self, v: dict[str, Any]) -> dict[str, Any]:  # noqa: N802 - as above
        return {"project": {"artifact": None}}

    def _CreateArtifactManifest(self, v: dict[str, Any]) -> dict[str, Any]:  # noqa: N802 - as above
        name = f"{v['runName']}/{v['artifactID']}/{v['name']}"
        file = {"id": name, "uploadUrl": f"{self.url}/storage/{name}", "uploadHeaders": []}
        return {"createArtifactManifest": {"artifactManifest": {"id": name, "file": file}}}

    def _UpdateArtifactManifest(self, v: dict[str, Any]) -> dict[str, Any]:  # noqa: N802 - as above
        name = v["artifactManifestID"]
        file = {"id": name, "uploadUrl": f"{self.url}/storage/{name}", "uploadHeaders": []}
        return {"updateArtifactManifest": {"artifactManifest": {"id": name, "file": file}}}

    def _CreateArtifactFiles(self, v: dict[str, Any]) -> dict[str, Any]:  # noqa: N802 - as above
        edges = []
        for file in v["input"]["artifactFiles"]:
            name = f"artifacts/{file['artifactID']}/{file['name']}"
            node = {
                "id": name,
                "name": file["name"],
                "displayName": file["name"],
                "uploadUrl": f"{self.url}/storage/{name}",
                "uploadHeaders": [],
                "artifact": {"id": file["artifactID"]},
                "storagePath": name,
                "uploadMultipartUrls": None,
            }
            edges.append({"node": node})
        return {"createArtifactFiles": {"files": {"edges": edges}}}

    def _CommitArtifact(self, v: dict[str, Any]) -> dict[str, Any]:  # noqa: N802 - as above
        return {"commitArtifact": {"artifact": {"id": v["artifactID"], "digest": ""}}}

    def _UpsertSweep(self, v: dict[str, Any]) -> dict[str, Any]:  # noqa: N802 - as above
        name = f"sweep{len(self.sweeps) + 1}"
        self.sweeps[name] = v
        project = {"id": "UHI=", "name": v["projectName"], "entity": {"id": "RQ=", "name": ENTITY}}
        sweep = {"name": name, "project": project}
        return {"upsertSweep": {"sweep": sweep, "configValidationWarnings": []}}

    def _SweepWithRuns(self, v: dict[str, Any]) -> dict[str, Any]:  # noqa: N802 - as above
        config = self.sweeps[v["sweep"]]["config"]
        sweep = {"id": v["sweep"], "name": v["sweep"], "config": config, "runs": {"edges": []}}
        return {"project": {"sweep": sweep}}

    def _CreateAgent(self, v: dict[str, Any]) -> dict[str, Any]:  # noqa: N802 - as above
        return {"createAgent": {"agent": {"id": "agent-1"}}}

    def _Heartbeat(self, v: dict[str, Any]) -> dict[str, Any]:  # noqa: N802 - as above
        busy = bool(json.loads(v["runState"]))
        commands = [] if busy else [self.jobs.pop(0) if self.jobs else {"type": "exit"}]
        return {"agentHeartbeat": {"agent": {"id": v["id"]}, "commands": json.dumps(commands)}}

    def _ServerFeaturesQuery(self, v: dict[str, Any]) -> dict[str, Any]:  # noqa: N802 - as above
        return {"serverInfo": {"features": []}}

    def _CreateRunFiles(self, v: dict[str, Any]) -> dict[str, Any]:  # noqa: N802 - as above
        files = [
            {"name": name, "uploadUrl": f"{self.url}/storage/{v['run']}/{name}"}
            for name in v["files"]
        ]
        return {"createRunFiles": {"runID": v["run"], "uploadHeaders": [], "files": files}}

    def _CreateArtifact(self, v: dict[str, Any]) -> dict[str, Any]:  # noqa: N802 - as above
        self.artifacts.append(v)
        number = len(self.artifacts)
        sequence = {"id": f"sequence-{number}", "latestArtifact": None}
        artifact = {"id": f"artifact-{number}", "state": "PENDING", "artifactSequence": sequence}
        return {"createArtifact": {"artifact": artifact}}


class _Handler(JsonHandler):
    owner: WandbServer

    def _body(self) -> bytes:
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        zipped = self.headers.get("Content-Encoding") == "gzip"
        return gzip.decompress(content) if zipped else content

    @override
    def serve(self) -> None:
        owner, body = self.owner, self._body()
        headers = {k: v for k, v in self.headers.items() if k.lower() != "authorization"}
        owner.requests.append((self.path, headers, body))
        if self.path.startswith("/failure/"):  # a test's other process switches it
            owner.failure = self.path.removeprefix("/failure/")  # pyright: ignore[reportAttributeAccessIssue]  # the test names one
            self.reply({})
            return
        if owner.failure == "drop":
            self.connection.close()
            self.close_connection = True
            return
        if owner.failure == "500":
            self.reply({"error": "out of order"}, code=500)
            return
        stream = re.match(r"/files/[^/]+/[^/]+/([^/]+)/file_stream", self.path)
        if stream:
            owner.stream(stream[1], json.loads(body))
            self.reply({})
        elif self.path == "/graphql":
            asked = json.loads(body)
            name = re.search(r"(?:query|mutation)\s+(\w+)", asked["query"])
            operation = name[1] if name else "?"
            variables = asked.get("variables") or {}
            self.reply({"data": owner.answer(operation, variables, asked["query"])})
        elif self.path.startswith("/storage/"):
            owner.files[self.path.removeprefix("/storage/")] = body
            self.reply({})
        else:
            owner.unknown.append((self.path, body[:200]))
            self.reply({})
