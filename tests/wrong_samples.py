"""Wrong resources, each with the field and the words of its refusal: by the models, and by a cluster's API server."""

from __future__ import annotations

from dataclasses import dataclass

from resource_samples import (
    AUTH,
    CALLBACK,
    GRPC,
    HTTP,
    OAUTH,
    OIDC,
    POSTGRESQL,
    PROCESS,
    ROUTE,
    SECRET,
    SQL,
    TLS,
    Document,
    changed,
    executor,
    external,
    grpc,
    helm,
    http,
    resource,
    script,
    sql,
    without,
)


@dataclass(frozen=True)
class Wrong:
    """A wrong resource.

    Attributes:
        document: The resource.
        field: Path of the field that the API server names.
        words: What it says of it.
        only_cluster: The embedded home takes it.
        before: The resource that is there, when a change is what is wrong.
    """

    document: Document
    field: str
    words: str
    only_cluster: bool = False
    before: Document | None = None

    def __str__(self) -> str:
        return f"{self.field}: {self.words}"


_ENV = "in a cluster give secretKeyRef"

WRONG: list[Wrong] = [
    # What a single field may be.
    Wrong(resource("ProcessDefinition", "Order_1", bpmn="x"), "metadata.name", "a lowercase RFC 1123 subdomain"),
    Wrong(resource("ProcessDefinition", "a.b", bpmn="x"), "metadata.name", "should match '^[a-z0-9]([-a-z0-9]*"),
    Wrong(resource("ProcessDefinition", "a" * 48, bpmn="x"), "metadata.name", "may not be more than 47 bytes"),
    Wrong(resource("TaskExecutor", "router", **executor()["spec"]), "metadata.name", "the names of parts of ProkOS"),
    Wrong(executor(extra=1), "spec.extra", "unknown field"),
    Wrong(http(timeout="5s"), "spec.http.timeout", "unknown field"),
    Wrong(without(executor(), "type"), "spec.type", "Required value"),
    Wrong(executor(type="htpp"), "spec.type", "Unsupported value"),
    Wrong(executor(concurrency=0), "spec.concurrency", "should be greater than or equal to 1"),
    Wrong(executor(concurrency="4"), "spec.concurrency", "must be of type integer"),
    Wrong(executor(backoff=[]), "spec.backoff", "must be of type object"),
    Wrong(executor(accepts=[{"jobType": 5}]), "spec.accepts[0].jobType", "must be of type string"),
    Wrong(executor(accepts=[{"jobType": "a"}] * 257), "spec.accepts", "must have at most 256 items"),
    Wrong(executor(inputs=[{"source": "a", "target": "b"}]), "spec.inputs[0].source", "should match '^='"),
    Wrong(executor(inputs=[{"source": "=a", "target": "b-c"}]), "spec.inputs[0].target", "should match"),
    Wrong(executor(pod={"resources": {"limits": {"cpu": "fast"}}}), "spec.pod.resources.limits.cpu", "should match"),
    Wrong(executor(replicas=-1), "spec.replicas", "should be greater than or equal to 0"),
    Wrong(http(rateLimit={"requestsPerSecond": 0}), "spec.http.rateLimit.requestsPerSecond", "greater than 0"),
    Wrong(without(http(), "http"), "spec", "the block http goes with type: http"),
    Wrong(resource("TaskExecutor", type="http", http={}), "spec.http.url", "Required value"),
    Wrong(resource("TaskRoute", process="p", element="e", executor="A"), "spec.executor", "should match"),
    Wrong(changed(ROUTE, confidence=1.5), "spec.confidence", "should be less than or equal to 1"),
    # Durations.
    Wrong(executor(timeout=5), "spec.timeout", "must be of type string"),
    Wrong(executor(timeout="5"), "spec.timeout", "should match"),
    Wrong(executor(timeout="1d"), "spec.timeout", "should match"),
    Wrong(executor(timeout="-1s"), "spec.timeout", "should match"),
    Wrong(executor(timeout="1s 2s"), "spec.timeout", "should match"),
    Wrong(executor(timeout="0"), "spec.timeout", "must be longer than 0"),
    Wrong(executor(timeout="2562048h"), "spec.timeout", "evaluat"),
    Wrong(resource("ProkOS", pdo={"beatInterval": "99ms"}), "spec.pdo.beatInterval", "must be at least 100ms"),
    Wrong(resource("ProkOS", pdo={"beatInterval": "5001ms"}), "spec.pdo.beatInterval", "must be at most 5s"),
    Wrong(resource("ProkOS", pdo={"scanInterval": "1ms"}), "spec.pdo.scanInterval", "must be at least 100ms"),
    Wrong(resource("ProkOS", pdo={"lease": "999ms"}), "spec.pdo.lease", "must be at least 1s"),
    Wrong(resource("ProkOS", router={"timeout": "0s"}), "spec.router.timeout", "must be longer than 0"),
    Wrong(helm(timeout="0s"), "spec.engine.helm.timeout", "must be longer than 0"),
    *(
        Wrong(
            resource("TaskExecutor", type="container", container={"image": "i", "startTimeout": wrong}),
            "spec.container.startTimeout",
            words,
        )
        for wrong, words in {"999ms": "must be at least 1s", "61m": "must be at most 1h"}.items()
    ),
    *(
        Wrong(http(timeouts={name: "0s"}), f"spec.http.timeouts.{name}", "must be longer than 0")
        for name in ("connect", "read", "total")
    ),
    *(
        Wrong(http(retry={"initial": "0s", "maximum": "0s"}), f"spec.http.retry.{name}", "must be longer than 0")
        for name in ("initial", "maximum")
    ),
    Wrong(http(circuitBreaker={"openFor": "0s"}), "spec.http.circuitBreaker.openFor", "must be longer than 0"),
    Wrong(http(callback={**CALLBACK, "timeout": "0s"}), "spec.http.callback.timeout", "must be longer than 0"),
    Wrong(http(callback={**CALLBACK, "timeout": "8761h"}), "spec.http.callback.timeout", "must be at most 8760h"),
    Wrong(sql(exactlyOnceRetention="1m"), "spec.sql.exactlyOnceRetention", "must be at least 1h"),
    Wrong(sql(connectTimeout="1ms"), "spec.sql.connectTimeout", "must be at least 1s"),
    Wrong(sql(lockTimeout="0s"), "spec.sql.lockTimeout", "must be longer than 0"),
    Wrong(sql(statementTimeout="0s"), "spec.sql.statementTimeout", "must be longer than 0"),
    # ProkOS.
    Wrong(
        resource("ProkOS", engine={"helm": {}, "external": {"address": "a:1"}}),
        "spec.engine",
        "give helm or external, not both",
    ),
    Wrong(
        external(oauth=OAUTH, basic={"username": "u", "password": {"secretKeyRef": SECRET}}, tls=TLS),
        "spec.engine.external",
        "give oauth or basic, not both",
    ),
    Wrong(external(oauth=OAUTH), "spec.engine.external.tls", "credentials need tls.enabled: true"),
    Wrong(external(tls={"caFile": "/a", "caSecretRef": SECRET}), "spec.engine.external.tls", "caFile or caSecretRef"),
    Wrong(
        external(tls=TLS, oauth={**OAUTH, "tokenUrl": "http://login.example/"}),
        "spec.engine.external.oauth.tokenUrl",
        "should match",
    ),
    Wrong(external(address="engine"), "spec.engine.external.address", "should match"),
    Wrong(resource("ProkOS", router={"mode": "llm"}), "spec.router.model", "mode is 'llm', so model is needed"),
    *(
        Wrong(document, field, "give exactly one of env, file or secretKeyRef")
        for document, field in (
            (resource("ProkOS", router={"apiKey": {}}), "spec.router.apiKey"),
            (external(tls=TLS, oauth={**OAUTH, "clientSecret": {}}), "spec.engine.external.oauth.clientSecret"),
            (external(tls=TLS, basic={"username": "u", "password": {}}), "spec.engine.external.basic.password"),
        )
    ),
    Wrong(helm(chart="other"), "spec.engine.helm.chart", "needs its repository"),
    Wrong(helm(chart="/a", repository="https://x"), "spec.engine.helm.repository", "leave repository out"),
    Wrong(helm(chart="camunda-engine", version="1"), "spec.engine.helm.version", "leave version out"),
    Wrong(helm(version="12.1"), "spec.engine.helm.version", "write for example 14, 13.x or 14.8.4"),
    Wrong(helm(version="13", storage=POSTGRESQL), "spec.engine.helm.storage", "no relational storage; take version 14"),
    Wrong(helm(chart="camunda-engine", brokers=3), "spec.engine.helm.chart", "1 broker with 1 partition"),
    Wrong(
        helm(chart="camunda-engine", tlsSecret="t", authentication={"oidc": OIDC}),
        "spec.engine.helm.authentication",
        "camunda-engine has no authentication",
    ),
    Wrong(helm(chart="oci://x/y", address="a:1", heap="1g"), "spec.engine.helm.chart", "heap would do nothing"),
    Wrong(helm(chart="oci://x/y"), "spec.engine.helm.chart", "give the address of its gateway"),
    Wrong(helm(replicationFactor=3), "spec.engine.helm.replicationFactor", "needs as many brokers"),
    Wrong(helm(storage={"type": "h2"}, brokers=3), "spec.engine.helm.storage", "needs 1 broker and 1 partition"),
    Wrong(helm(authentication={"oidc": OIDC}), "spec.engine.helm.authentication", "authentication needs tlsSecret"),
    Wrong(
        helm(tlsSecret="t", authentication={"basic": {"passwordSecretRef": SECRET}}),
        "spec.engine.helm.authentication",
        "authentication.basic needs a storage",
    ),
    Wrong(helm(tlsSecret="t", authentication={}), "spec.engine.helm.authentication", "exactly one of basic and oidc"),
    Wrong(helm(storage={"type": "postgresql"}), "spec.engine.helm.storage.type", "needs url, username and password"),
    Wrong(helm(storage={"username": "u"}), "spec.engine.helm.storage.type", "which do nothing with another type"),
    Wrong(
        helm(storage={**POSTGRESQL, "url": "jdbc:postgresql://u:p@db/engine"}),
        "spec.engine.helm.storage.url",
        "must not hold a password",
    ),
    # TaskExecutor.
    *(
        Wrong(
            {**executor(), "spec": {"type": "script", name: settings}},
            "spec",
            f"the block {name} goes with type: {name}, and only there",
        )
        for name, settings in {
            "http": HTTP,
            "grpc": GRPC,
            "sql": SQL,
            "container": {"image": "i"},
            "python": {"executor": "a:B"},
        }.items()
    ),
    Wrong(without(executor(), "script"), "spec", "the block script goes with type: script, and only there"),
    Wrong(executor(accepts=[{}]), "spec.accepts[0]", "an empty rule would accept every task"),
    Wrong(executor(accepts=[{"headers": {}}]), "spec.accepts[0]", "an empty rule would accept every task"),
    Wrong(executor(scaling={"min": 2}), "spec.scaling.min", "min must not be greater than max"),
    Wrong(executor(scaling={"podPerTask": True}), "spec.concurrency", "set concurrency: 1"),
    Wrong(executor(backoff={"initial": "6m"}), "spec.backoff.initial", "initial must not be longer than maximum"),
    Wrong(executor(secrets=[{"name": "a"}]), "spec.secrets[0]", "exactly one of env, file or secretKeyRef"),
    Wrong(executor(network={"egress": [{"ports": [{"port": 1}]}]}), "spec.network.egress[0]", "give either cidr"),
    Wrong(
        executor(network={"egress": [{"cidr": "10.0.0.1/8", "ports": [{"port": 1}]}]}),
        "spec.network.egress[0].cidr",
        "is not a network",
    ),
    Wrong(
        executor(network={"egress": [{"namespace": "a", "ports": []}]}), "spec.network.egress[0].ports", "at least 1"
    ),
    Wrong(script(command=["a"]), "spec.script", "give either a script (source, configMapRef or file"),
    Wrong(
        resource("TaskExecutor", type="script", script={"source": "a"}), "spec.script.language", "language goes with"
    ),
    Wrong(
        resource("TaskExecutor", type="script", script={"language": "shell", "file": "a.sh"}),
        "spec.script.file",
        "file must be an absolute path",
    ),
    Wrong(script(preload=["json"]), "spec.script.preload", "preload goes with language python"),
    Wrong(script(env={"A": "b"}, secretEnv={"A": "b"}), "spec.script.env", "must not be in env and in secretEnv"),
    *(
        Wrong(
            script(**{name: {"PROKOS_A": "b"}}), f"spec.script.{name}", f"names in {name} must not start with PROKOS_"
        )
        for name in ("env", "secretEnv")
    ),
    # Type http.
    Wrong(http(url="https://a/{b"), "spec.http.url", "is not a URL template"),
    Wrong(http(url="ftp://a/"), "spec.http.url", "must start with http:// or https://"),
    Wrong(http(url="https://u:p@a/"), "spec.http.url", "must not hold credentials"),
    Wrong(http(url="https://{a}/", auth=AUTH), "spec.http.url", "the input decides the host"),
    Wrong(http(idempotency={"header": "a b"}), "spec.http.idempotency.header", "not the name of a header"),
    Wrong(http(auth={}), "spec.http.auth", "give exactly one of bearer, basic, apiKey or oauth2"),
    Wrong(http(auth={"apiKey": {"secret": "a"}}), "spec.http.auth.apiKey", "give exactly one of header or query"),
    Wrong(http(auth={"apiKey": {"secret": "a", "header": "HOST"}}), "spec.http.auth.apiKey.header", "not the name of"),
    *(
        Wrong(
            http(auth={"oauth2": {"tokenUrl": url, "clientId": "c", "clientSecret": "s"}}),
            "spec.http.auth.oauth2.tokenUrl",
            "is no URL with a host",
        )
        for url in ("login.example", "https://{a}/", "https://a/{b}", "https://u@a/", "https://")
    ),
    *(
        Wrong(http(allowedNetworks=[network]), "spec.http.allowedNetworks[0]", "is not a network")
        for network in ("10.0.0.1/8", "10.0.0.1", "a", "10.0.0.0/33")
    ),
    Wrong(http(retry={"initial": "6s"}), "spec.http.retry.initial", "initial must not be longer than maximum"),
    *(
        Wrong(http(outcomes=[{"status": "402", **outcome}]), "spec.http.outcomes[0]", words)
        for outcome, words in (
            ({"outcome": "error"}, "code goes with outcome: error, and is needed there"),
            ({"outcome": "fail", "codeFrom": "a"}, "codeFrom and variables go with outcome: error"),
            ({"outcome": "complete", "message": "a"}, "outcomes complete and callback have no message"),
            ({"outcome": "fail", "retryAfter": "1s"}, "retryAfter goes with outcome: retry"),
        )
    ),
    Wrong(http(outcomes=[{"status": "99", "outcome": "fail"}]), "spec.http.outcomes[0].status", "should match"),
    Wrong(
        http(outcomes=[{"status": "202", "outcome": "callback"}]), "spec.http.outcomes", "needs the settings callback"
    ),
    Wrong(http(responseFormat="file"), "spec.http.responseFormat", "needs filesDirectory"),
    Wrong(http(pagination={}), "spec.http.pagination", "exactly one of linkHeader, nextUrl, cursor, page or offset"),
    Wrong(http(pagination={"linkHeader": True}, method="POST"), "spec.http.method", "pagination goes with method GET"),
    Wrong(
        http(pagination={"linkHeader": True}, responseFormat="text"),
        "spec.http.responseFormat",
        "pagination reads JSON",
    ),
    Wrong(
        http(pagination={"linkHeader": True}, callback=CALLBACK),
        "spec.http.pagination",
        "pagination and callback do not go together",
    ),
    Wrong(
        changed(http(callback=CALLBACK), scaling={"min": 0}),
        "spec.scaling.min",
        "a worker must be there when a callback comes",
    ),
    Wrong(http(callback={**CALLBACK, "field": "a"}), "spec.http.callback", "needs a body that is an object"),
    Wrong(http(callback={**CALLBACK, "url": "https://a/"}), "spec.http.callback.url", "must contain {token}"),
    *(
        Wrong(http(callback={**CALLBACK, "header": nothing}), "spec.http.callback", "give header, field or both")
        for nothing in (None, "")
    ),
    Wrong(http(callback={**CALLBACK, "header": "Host"}), "spec.http.callback.header", "not the name of a header"),
    Wrong(http(callback={**CALLBACK, "url": "ä{token}"}), "spec.http.callback.url", "character that headers cannot"),
    # Type grpc.
    Wrong(grpc(address="a"), "spec.grpc.address", "should match"),
    Wrong(grpc(bearer="a", tls={"enabled": False}), "spec.grpc.tls", "secrets need tls.enabled: true"),
    Wrong(grpc(tls={"certSecret": "a"}), "spec.grpc.tls", "certSecret and keySecret go together"),
    Wrong(grpc(tls={"enabled": False, "serverName": "a"}), "spec.grpc.tls.enabled", "do nothing with enabled: false"),
    Wrong(grpc(metadata={"authorization": "a"}), "spec.grpc.metadata", "authorization cannot be set here"),
    *(
        Wrong(grpc(metadata={name: "a"}), "spec.grpc.metadata", "must not start with grpc-")
        for name in ("grpc-a", "a-bin")
    ),
    Wrong(grpc(allowedNetworks=["a"]), "spec.grpc.allowedNetworks[0]", "is not a network"),
    Wrong(grpc(outcomes=[{"status": "ABORTED", "outcome": "error"}]), "spec.grpc.outcomes[0]", "code goes with"),
    # Type sql.
    Wrong(sql(url="sqlite:///a"), "spec.sql", "give either url or urlSecret"),
    Wrong(sql(urlSecret=None, url="oracle://a"), "spec.sql.url", "must start with sqlite://"),
    Wrong(sql(urlSecret=None, url="postgresql://u:p@a/b"), "spec.sql.url", "holds a password"),
    Wrong(sql(urlSecret=None, url="postgresql://a/b?password=p"), "spec.sql.url", "holds a password"),
    Wrong(sql(statement=None), "spec.sql", "give either statement or statements"),
    Wrong(
        sql(statement=None, statements=[{"name": "a", "statement": "SELECT 1"}], batch="a"),
        "spec.sql",
        "batch and expect belong to each of the statements",
    ),
    Wrong(
        sql(statement=None, statements=[{"name": "a", "statement": "SELECT 1"}] * 2),
        "spec.sql.statements[1]",
        "Duplicate value",
    ),
    Wrong(sql(readOnly=True, setup=["CREATE TABLE a"]), "spec.sql.readOnly", "readOnly allows no setup"),
    Wrong(sql(expect={}), "spec.sql.expect", "give either rows or atLeast"),
    Wrong(
        sql(statement=None, statements=[{"name": "a", "statement": "SELECT 1", "expect": {}}]),
        "spec.sql.statements[0].expect",
        "give either rows or atLeast",
    ),
    Wrong(sql(tls={"keySecret": "a"}), "spec.sql.tls", "certificateSecret and keySecret go together"),
    Wrong(sql(tls={"mode": "require", "caSecret": "a"}), "spec.sql.tls.caSecret", "checks no certificate"),
    Wrong(sql(errors=[{"code": "A"}]), "spec.sql.errors[0]", "give sqlstate, errno, constraint or contains"),
    # ProcessDefinition.
    Wrong(resource("ProcessDefinition"), "spec", "give exactly one of bpmn, file or configMapRef"),
    Wrong(
        changed(PROCESS, configMapRef={"name": "a", "key": "b"}),
        "spec",
        "give exactly one of bpmn, file or configMapRef",
    ),
    # What only the embedded home takes.
    *(
        Wrong(document, field, words, only_cluster=True)
        for document, field, words in (
            (resource("ProkOS", engine={"embedded": {}}), "spec.engine.embedded", "in a cluster give helm or external"),
            (external(tls={"caFile": "/a"}), "spec.engine.external.tls.caFile", "in a cluster give caSecretRef"),
            (resource("ProcessDefinition", file="a.bpmn"), "spec.file", "in a cluster give bpmn or configMapRef"),
            (
                resource("TaskExecutor", type="python", python={"executor": "a:B", "path": "."}),
                "spec.python.path",
                "in a cluster install the package in the image",
            ),
            (executor(secrets=[{"name": "a", "env": "A"}]), "spec.secrets[0].env", _ENV),
            *(
                (
                    resource("ProkOS", router={"apiKey": {source: "a"}}),
                    f"spec.router.apiKey.{source}",
                    f"{source} is for the embedded home; {_ENV}",
                )
                for source in ("env", "file")
            ),
            (resource("ProkOS", pdo={"include": ["a", "a"]}), "spec.pdo.include[1]", "Duplicate value"),
        )
    ),
    # Changes.
    *(
        Wrong(after, field, words, only_cluster=True, before=before)
        for before, after, field, words in (
            (executor(), http(), "spec.type", "type cannot change"),
            (ROUTE, changed(ROUTE, process="other"), "spec.process", "process cannot change"),
            (ROUTE, changed(ROUTE, element="Other"), "spec.element", "element cannot change"),
            (helm(), external(), "spec", "engine cannot change between helm and external"),
            (external(), resource("ProkOS"), "spec", "engine cannot change between helm and external"),
        )
    ),
]
