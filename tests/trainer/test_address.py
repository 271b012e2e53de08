"""Teacher addresses: the good forms and what is said about the others."""

from __future__ import annotations

import pytest

from trainer.errors import BadInput
from trainer.teacher.address import FORMS, check_address, connect


@pytest.mark.parametrize(
    "address",
    [
        "none",
        "uniform",
        "local:runs/teacher",
        "local:/abs/a b",
        "grpc://localhost:8001",
        "grpc://a:1,b:65535",
        "grpc://[::1]:8001",
        "grpc://teacher.svc.:8001",
        f"grpc://{'b' * 63}.svc:8001",
        "grpc://b\u00fccher.test:8001",
        "grpc://_a-b.0:8001",
        "grpc://unix:/tmp/s,a:1",
        "grpcs://a:1,b:2",
        "tritons://a:1/teacher",
        "triton://localhost:8001/teacher",
        "tritons://a:1,b:2,[::1]:3/teacher",
        "triton://unix:/tmp/s/teacher",
    ],
)
def test_good_addresses(address: str) -> None:
    check_address(address)


@pytest.mark.parametrize(
    ("address", "named"),
    [
        ("", "''"),
        ("None", "'None'"),
        ("localhost:8001", "'localhost:8001'"),
        ("http://localhost:8000", "'http://localhost:8000'"),
        ("grpc:localhost:8001", "'grpc:localhost:8001'"),
        ("local:", "'local:'"),
        ("grpc://", "'' is not HOST:PORT"),
        ("grpc://localhost", "'localhost' is not HOST:PORT"),
        ("grpc://:8001", "':8001' is not HOST:PORT"),
        ("grpc://localhost:0", "'localhost:0' is not HOST:PORT"),
        ("grpc://localhost:65536", "'localhost:65536' is not HOST:PORT"),
        ("grpc://localhost:http", "'localhost:http' is not HOST:PORT"),
        ("grpc://localhost:-1", "'localhost:-1' is not HOST:PORT"),
        ("grpc://localhost:\u0668\u0660", "is not HOST:PORT"),
        ("grpc://teacher..svc:8001", "'teacher..svc:8001' is not HOST:PORT"),
        ("grpc://.svc:8001", "'.svc:8001' is not HOST:PORT"),
        (f"grpc://a:1,{'b' * 64}:1", "b:1' is not HOST:PORT"),
        ("tritons://b\u00fc..svc:1/m", "'b\u00fc..svc:1' is not HOST:PORT"),
        ("grpc://a:1,", "'' is not HOST:PORT"),
        ("grpc://a:1,b", "'b' is not HOST:PORT"),
        ("grpc://unix:", "'unix:' is not HOST:PORT"),
        ("grpcs://a", "'a' is not HOST:PORT"),
        ("grpcss://a:1", "'grpcss://a:1'"),
        ("tritons://a:1/", "names no model"),
        ("triton:a:1/m", "'triton:a:1/m'"),
        ("triton://a:1", "'' is not HOST:PORT"),
        ("triton://a:1/", "names no model"),
        ("triton://a:1,b/m", "'b' is not HOST:PORT"),
        ("triton://a:1,/m", "'' is not HOST:PORT"),
        ("triton://a/m", "'a' is not HOST:PORT"),
        ("triton://a:1/m/2", "'a:1/m' is not HOST:PORT"),
    ],
)
def test_bad_addresses(address: str, named: str) -> None:
    for use in (check_address, connect):
        with pytest.raises(BadInput) as caught:
            use(address)
        assert named in str(caught.value)
        assert f"must be {FORMS}" in str(caught.value)


@pytest.mark.parametrize("address", ["none", "uniform"])
def test_nobody_answers_behind_these(address: str) -> None:
    assert connect(address) is None
