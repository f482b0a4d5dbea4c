"""The executor type grpc against a real gRPC server."""

from __future__ import annotations

import asyncio
import base64
import time
from contextlib import asynccontextmanager
from datetime import timedelta

import grpc
import pytest
import structlog
import trustme
from google.protobuf import any_pb2, descriptor_pb2
from pydantic import ValidationError

from prokos.resources.grpc_settings import GrpcSettings
from prokos.tde.contract import BusinessError, Context, Environment, FatalFailure, RetryableFailure, Secrets
from prokos.tde.grpc.executor import GrpcExecutor
from unit.grpc_service import descriptor_file, descriptor_set, payments_server

LOOPBACK = ["127.0.0.0/8"]
PLAIN = {"tls": {"enabled": False}, "allowedNetworks": LOOPBACK}


@asynccontextmanager
async def executor(tmp_path, address, method="Pay", secrets=None, resolver=None, **settings):
    parsed = GrpcSettings.model_validate({"address": address, "method": f"shop.Payments/{method}", **PLAIN, **settings})
    environment = Environment("payments", tmp_path, 4, Secrets(secrets or {}))
    made = GrpcExecutor(parsed, environment, **({"resolver": resolver} if resolver else {}))
    await made.start()
    try:
        yield made
    finally:
        await made.close()


async def call(made, data, timeout=60.0):
    context = Context("key-1", timedelta(seconds=timeout), structlog.get_logger())
    return await made.execute(data, context)


@pytest.fixture(params=["reflection", "descriptor set"])
def described(request):
    return {"descriptorSet": descriptor_set()} if request.param == "descriptor set" else {}


async def test_a_unary_call(tmp_path, described):
    async with payments_server(reflects=not described) as (service, address):
        async with executor(tmp_path, address, metadata={"x-shop": "eu"}, **described) as made:
            assert await call(made, {"orderId": "o1", "cents": 5}) == {"paymentId": "pppp", "cents": "5"}
        ((request, metadata),) = service.calls
    assert (request.order_id, request.cents) == ("o1", 5)
    assert metadata["idempotency-key"] == "key-1"
    assert metadata["x-shop"] == "eu"


async def test_a_number_beyond_what_json_readers_hold_keeps_its_digits(tmp_path):
    async with payments_server() as (_, address), executor(tmp_path, address) as made:
        assert (await call(made, {"cents": "9007199254740993"}))["cents"] == "9007199254740993"


async def test_one_field_of_the_input_can_be_the_request(tmp_path):
    async with payments_server() as (service, address), executor(tmp_path, address, request="charge") as made:
        await call(made, {"charge": {"orderId": "o2"}, "secretPlan": 1})
        assert service.calls[0][0].order_id == "o2"
        with pytest.raises(FatalFailure, match="no field 'charge'"):
            await call(made, {})


async def test_a_stream_is_collected(tmp_path):
    async with payments_server() as (_, address), executor(tmp_path, address, "History", messages="rows") as made:
        found = await call(made, {"orderId": "o", "cents": 2})
    assert found == {"rows": [{"paymentId": "o-1", "cents": "1"}, {"paymentId": "o-2", "cents": "2"}]}


async def test_a_stream_without_end_is_cut_off(tmp_path):
    async with payments_server() as (_, address):
        async with executor(tmp_path, address, "History", maxMessages=10) as made:
            with pytest.raises(FatalFailure, match="maxMessages"):
                await call(made, {"orderId": "o", "cents": -1})
        async with executor(tmp_path, address, "History", maxResponseBytes=1000, maxMessages=10_000) as made:
            with pytest.raises(FatalFailure, match="maxResponseBytes"):
                await call(made, {"orderId": "o", "cents": -1})


async def test_an_answer_that_is_too_long_is_refused(tmp_path):
    async with payments_server() as (_, address), executor(tmp_path, address) as made:
        with pytest.raises(FatalFailure, match="maxResponseBytes"):
            await call(made, {"orderId": "huge"})


@pytest.mark.parametrize("status", ["UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "ABORTED"])
async def test_what_may_pass_is_tried_again(tmp_path, status):
    async with payments_server() as (_, address), executor(tmp_path, address) as made:
        with pytest.raises(RetryableFailure, match=f"{status}: because of this"):
            await call(made, {"orderId": f"status:{status}"})


async def test_other_statuses_fail(tmp_path):
    async with payments_server() as (_, address), executor(tmp_path, address) as made:
        with pytest.raises(FatalFailure, match="NOT_FOUND"):
            await call(made, {"orderId": "status:NOT_FOUND"})


async def test_outcomes_go_before_that(tmp_path):
    outcomes = [
        {"status": "FAILED_PRECONDITION", "outcome": "error", "code": "DECLINED"},
        {"status": "INTERNAL", "outcome": "retry"},
        {"status": "UNAVAILABLE", "outcome": "fail", "message": "call the shop"},
    ]
    async with payments_server() as (_, address), executor(tmp_path, address, outcomes=outcomes) as made:
        with pytest.raises(BusinessError) as declined:
            await call(made, {"orderId": "status:FAILED_PRECONDITION"})
        with pytest.raises(RetryableFailure):
            await call(made, {"orderId": "status:INTERNAL"})
        with pytest.raises(FatalFailure, match="call the shop"):
            await call(made, {"orderId": "status:UNAVAILABLE"})
    assert declined.value.code == "DECLINED"
    assert declined.value.variables == {"status": "FAILED_PRECONDITION", "message": "because of this"}


async def test_a_server_that_hangs_is_left_at_the_deadline(tmp_path):
    async with payments_server() as (_, address), executor(tmp_path, address) as made:
        await call(made, {})
        started = time.monotonic()
        with pytest.raises(RetryableFailure, match="DEADLINE_EXCEEDED"):
            await call(made, {"orderId": "slow"}, timeout=0.3)
    assert time.monotonic() - started < 60


async def test_a_server_that_is_not_there_is_tried_again(tmp_path):
    async with executor(tmp_path, "127.0.0.1:1", descriptorSet=descriptor_set()) as made:
        with pytest.raises(RetryableFailure, match="UNAVAILABLE"):
            await call(made, {})


async def test_a_server_that_does_not_describe_itself_is_told(tmp_path):
    async with payments_server(reflects=False) as (_, address), executor(tmp_path, address) as made:
        with pytest.raises(FatalFailure, match="descriptorSet"):
            await call(made, {})


@pytest.mark.parametrize(
    ("method", "message"), [("Refund", "it has: History, Pay, Upload"), ("Upload", "a stream of requests")]
)
async def test_a_method_that_cannot_be_called_is_told_at_the_start(tmp_path, method, message):
    with pytest.raises(FatalFailure, match=message):
        async with executor(tmp_path, "127.0.0.1:1", method, descriptorSet=descriptor_set()):
            pass


@pytest.mark.parametrize("encoded", ["!", "AAAA", "eHh4"])
async def test_a_descriptor_set_that_is_none_is_told(tmp_path, encoded):
    with pytest.raises(ValueError, match="descriptorSet"):
        async with executor(tmp_path, "127.0.0.1:1", descriptorSet=encoded):
            pass


@pytest.mark.parametrize("data", [{"nope": 1}, {"cents": "many"}, {"orderId": 5}, {"cents": 1.5}])
async def test_an_input_that_is_no_request_says_why(tmp_path, data):
    async with payments_server() as (_, address), executor(tmp_path, address) as made:
        with pytest.raises(FatalFailure, match=r"no shop\.Charge"):
            await call(made, data)


@pytest.mark.parametrize("address", ["127.0.0.1:1", "localhost:1", "169.254.169.254:80", "10.1.1.1:1", "[::1]:1"])
async def test_private_addresses_are_refused(tmp_path, address):
    async with executor(tmp_path, address, allowedNetworks=[], descriptorSet=descriptor_set()) as made:
        with pytest.raises(FatalFailure, match=r"spec\.grpc\.allowedNetworks"):
            await call(made, {})


async def test_a_name_whose_address_changes_is_judged_each_time(tmp_path):
    answers = iter([["127.0.0.1"], ["10.0.0.1"]])

    async def resolver(host, port):
        return next(answers)

    async with payments_server() as (_, address):
        named = f"shop.example:{address.rpartition(':')[2]}"
        async with executor(tmp_path, named, resolver=resolver, descriptorSet=descriptor_set()) as made:
            await call(made, {"orderId": "o"})
            with pytest.raises(FatalFailure, match=r"10\.0\.0\.1"):
                await call(made, {"orderId": "o"})


async def test_tls_with_a_client_certificate_and_a_token(tmp_path):
    authority = trustme.CA()
    server, client = authority.issue_cert("shop.example"), authority.issue_cert("worker.example")
    credentials = grpc.ssl_server_credentials(
        [(server.private_key_pem.bytes(), b"".join(blob.bytes() for blob in server.cert_chain_pems))],
        authority.cert_pem.bytes(),
        require_client_auth=True,
    )
    secrets = {
        "ca": authority.cert_pem.bytes().decode(),
        "cert": b"".join(blob.bytes() for blob in client.cert_chain_pems).decode(),
        "key": client.private_key_pem.bytes().decode(),
        "token": "t0p-s3cret",
    }
    tls = {"caSecret": "ca", "serverName": "shop.example"}
    async with payments_server(credentials) as (service, address):
        mutual = {**tls, "certSecret": "cert", "keySecret": "key"}
        async with executor(tmp_path, address, secrets=secrets, tls=mutual, bearer="token") as made:
            await call(made, {"orderId": "o"})
        async with executor(tmp_path, address, secrets=secrets, tls=tls, descriptorSet=descriptor_set()) as made:
            with pytest.raises(RetryableFailure, match="UNAVAILABLE"):
                await call(made, {"orderId": "o"})
    assert service.calls[0][1]["authorization"] == "Bearer t0p-s3cret"
    assert len(service.calls) == 1, "without a client certificate nothing gets through"


async def test_a_secret_that_the_server_gives_back_does_not_get_out(tmp_path):
    async with payments_server() as (_, address), executor(tmp_path, address, secrets={"token": "this"}) as made:
        with pytest.raises(FatalFailure) as failed:
            await call(made, {"orderId": "status:INTERNAL"})
    assert "because of <secret token>" in str(failed.value)


async def test_calls_run_beside_each_other(tmp_path):
    async with payments_server() as (_, address), executor(tmp_path, address) as made:
        found = await asyncio.gather(*(call(made, {"orderId": "o", "cents": number}) for number in range(50)))
    assert [int(one.get("cents", 0)) for one in found] == list(range(50))


@pytest.mark.parametrize(
    "wrong",
    [
        {"address": "shop"},
        {"method": "Pay"},
        {"bearer": "token"},
        {"metadata": {"authorization": "x"}},
        {"metadata": {"Upper": "x"}},
        {"tls": {"certSecret": "cert"}},
        {"outcomes": [{"status": "ABORTED", "outcome": "error"}]},
        {"allowedNetworks": ["10.0.0.1/8"]},
    ],
)
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(ValidationError):
        GrpcSettings.model_validate({"address": "a:1", "method": "s.S/M", "tls": {"enabled": False}, **wrong})


async def test_a_secret_that_the_server_echoes_in_its_answer_becomes_no_variable(tmp_path):
    authority = trustme.CA()
    certificate = authority.issue_cert("shop.example")
    pair = certificate.private_key_pem.bytes(), b"".join(blob.bytes() for blob in certificate.cert_chain_pems)
    secrets = {"ca": authority.cert_pem.bytes().decode(), "token": "t0p-s3cret", "key": "an-api-key"}
    settings = {
        "tls": {"caSecret": "ca", "serverName": "shop.example"},
        "bearer": "token",
        "secretMetadata": {"x-api-key": "key"},
    }
    async with payments_server(grpc.ssl_server_credentials([pair])) as (service, address):
        async with executor(tmp_path, address, secrets=secrets, **settings) as made:
            assert (await call(made, {"orderId": "metadata:authorization"}))["paymentId"] == "Bearer <secret token>"
            assert (await call(made, {"orderId": "metadata:x-api-key"}))["paymentId"] == "<secret key>"
        async with executor(tmp_path, address, "History", secrets=secrets, **settings) as made:
            found = await call(made, {"orderId": "t0p-s3cret", "cents": 1})
    assert found == {"messages": [{"paymentId": "<secret token>-1", "cents": "1"}]}
    assert service.calls[0][1]["x-api-key"] == "an-api-key"


async def test_the_size_of_a_request_that_the_server_refuses_is_not_ours_to_set(tmp_path):
    async with payments_server() as (_, address), executor(tmp_path, address) as made:
        with pytest.raises(FatalFailure, match=r"(?i)received message larger than max"):
            await call(made, {"orderId": "x" * 5_000_000}, timeout=60)


async def test_an_answer_without_a_json_form_says_so(tmp_path):
    """An Any of a type that nobody described."""
    any_file = descriptor_pb2.FileDescriptorProto.FromString(any_pb2.DESCRIPTOR.serialized_pb)
    file = descriptor_file()
    file.dependency.append(any_file.name)
    del file.message_type[1].field[:]
    kind = descriptor_pb2.FieldDescriptorProto
    file.message_type[1].field.add(
        name="detail", number=1, type=kind.TYPE_MESSAGE, type_name=".google.protobuf.Any", label=kind.LABEL_OPTIONAL
    )
    files = descriptor_pb2.FileDescriptorSet(file=[any_file, file]).SerializeToString()
    async with payments_server() as (_, address):
        encoded = base64.b64encode(files).decode()
        async with executor(tmp_path, address, descriptorSet=encoded) as made:
            # What the server calls payment_id is read as an Any: its type is `type.example/Unknown`.
            unknown = any_pb2.Any(type_url="type.example/Unknown", value=b"x").SerializeToString().decode()
            with pytest.raises(FatalFailure, match=r"no shop\.Receipt that has a JSON form"):
                await call(made, {"orderId": f"answer:{unknown}"})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"bearer": "token"}, "secret 'token' cannot be sent"),
        ({"secretMetadata": {"x-key": "token"}}, "secret 'token' cannot be sent"),
        ({"secretMetadata": {"x-bin": "fine"}}, "-bin is binary"),
        ({"secretMetadata": {"grpc-timeout": "fine"}}, "grpc- is the protocol's"),
    ],
)
async def test_a_secret_that_metadata_cannot_hold_stops_the_worker_without_showing_it(tmp_path, settings, message):
    secrets = {"token": "PLANTED\nx-injected: 1", "fine": "PLANTED"}
    with pytest.raises(FatalFailure, match=message) as failed:
        async with executor(tmp_path, "127.0.0.1:1", secrets=secrets, tls={"enabled": True}, **settings):
            pass
    assert "PLANTED" not in str(failed.value)


@pytest.mark.parametrize("wrong", ["another name", "another authority"])
async def test_a_server_that_shows_the_wrong_certificate_gets_no_secret(tmp_path, wrong):
    authority = trustme.CA()
    certificate = authority.issue_cert("shop.example")
    pair = certificate.private_key_pem.bytes(), b"".join(blob.bytes() for blob in certificate.cert_chain_pems)
    trusted = trustme.CA() if wrong == "another authority" else authority
    secrets = {"ca": trusted.cert_pem.bytes().decode(), "token": "t0p-s3cret"}
    tls = {"caSecret": "ca", "serverName": "other.example" if wrong == "another name" else "shop.example"}
    async with payments_server(grpc.ssl_server_credentials([pair])) as (service, address):
        settings = {"tls": tls, "bearer": "token", "descriptorSet": descriptor_set()}
        async with executor(tmp_path, address, secrets=secrets, **settings) as made:
            with pytest.raises(RetryableFailure, match="UNAVAILABLE"):
                await call(made, {"orderId": "o"})
    assert service.calls == []
