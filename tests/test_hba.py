"""Rules by host, ident maps, and the words that both are made of."""

from ipaddress import ip_address
from pathlib import Path

import pytest

from dualpool.authentication.hba import Asked, Rule, decide, parse_hba
from dualpool.authentication.ident import allows, parse_ident

HERE = Path()


def rules(text: str) -> tuple[Rule, ...]:
    return parse_hba(text, HERE)


def method(text: str, user: str = "app", database: str = "app", address: str = "10.1.2.3", **options: bool) -> str:
    """What the rules say of a connection; "" if none fits. An empty address is a Unix socket."""
    rule = decide(rules(text), Asked(user, database, ip_address(address) if address else None, **options))
    return rule.method if rule is not None else ""


def test_the_first_line_that_fits_decides() -> None:
    text = "host all all 10.1.2.3/32 reject\nhost all all 10.0.0.0/8 md5\n"
    assert method(text) == "reject"
    assert method(text, address="10.1.2.4") == "md5"
    assert method(text, address="11.1.2.3") == ""
    assert method(text, address="") == ""


def test_how_a_connection_came() -> None:
    text = "local all all peer\nhostssl all all all cert\nhostnossl all all 10.0.0.0/8 md5\nhost all all all password\n"
    assert method(text, address="") == "peer"
    assert method(text, tls=True) == "cert"
    assert method(text) == "md5"
    assert method(text, address="192.0.2.1") == "password"
    assert method(text, address="2001:db8::1") == "password"


@pytest.mark.parametrize(
    ("address", "inside", "outside"),
    [
        ("10.1.2.3/32", "10.1.2.3", "10.1.2.4"),
        ("10.1.2.3 255.255.0.0", "10.1.9.9", "10.2.0.0"),
        ("10.1.2.3/255.255.255.0", "10.1.2.200", "10.1.3.1"),
        ("0.0.0.0/0", "203.0.113.9", "2001:db8::1"),
        ("2001:db8::/32", "2001:db8:1::1", "2001:db9::1"),
        ("2001:db8:: ffff:ffff::", "2001:db8:1::1", "2001:db9::1"),
        ("10.0.0.0/8", "::ffff:10.9.9.9", "::ffff:11.9.9.9"),
    ],
)
def test_addresses(address: str, inside: str, outside: str) -> None:
    assert method(f"host all all {address} trust", address=inside) == "trust"
    assert method(f"host all all {address} trust", address=outside) == ""


def test_names() -> None:
    assert method('host app,other "all",app all trust') == "trust"
    assert method('host "all" app all trust') == ""
    assert method('host "all" app all trust', database="all") == "trust"
    assert method("host sameuser all all trust", user="x", database="x") == "trust"
    assert method("host sameuser all all trust", user="x", database="y") == ""
    assert method('host "quo""ted" all all trust', database='quo"ted') == "trust"
    assert method("host app , other app all trust # comment", database="other") == "trust"


def test_replication_is_not_a_database() -> None:
    assert method("host all all all trust", replication=True) == ""
    assert method("host replication all all trust", replication=True) == "trust"
    assert method("host replication all all trust", database="replication") == ""
    assert method('host "replication" all all trust', database="replication") == "trust"


def test_names_in_files(tmp_path: Path) -> None:
    (tmp_path / "users").write_text("one, two # comment\n@more\n")
    (tmp_path / "more").write_text('"three 3"\n')
    (rule,) = parse_hba("host all @users all \\\n  trust", tmp_path)
    assert [word.text for word in rule.users] == ["one", "two", "three 3"]
    (tmp_path / "loop").write_text("@loop\n")
    with pytest.raises(ValueError, match=r"more than 10 deep"):
        parse_hba("host all @loop all trust", tmp_path)


def test_regular_expressions() -> None:
    text = 'host /^db\\d+$ "/^(app|web)_[a-z]{1,8}$" all trust'
    assert method(text, user="web_one", database="db17") == "trust"
    assert method(text, user="web_", database="db17") == ""
    assert method(text, user="web_one", database="mydb17") == ""
    assert method("host all /pp all trust", user="app") == "trust"


def test_cert_without_tls_is_for_the_gate_to_refuse() -> None:
    assert method("host all all all cert") == "cert"


def test_other_files(tmp_path: Path) -> None:
    (tmp_path / "one").write_text("host one all all trust\n")
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "20.conf").write_text("host three all all trust\n")
    (tmp_path / "more" / "10.conf").write_text("host two all all trust\n")
    for ignored in (".hidden.conf", "30.conf~"):
        (tmp_path / "more" / ignored).write_text("nonsense\n")
    text = 'host zero all all trust\ninclude "one"\ninclude_if_exists missing\ninclude_dir more\nhost four all all trust\n'
    assert [rule.databases[0].text for rule in parse_hba(text, tmp_path)] == ["zero", "one", "two", "three", "four"]
    (tmp_path / "one").write_text("\nwrong\n")
    with pytest.raises(ValueError, match=r"line 2: one: line 2: wrong: must begin"):
        parse_hba(text, tmp_path)
    (tmp_path / "loop").write_text("include loop")
    with pytest.raises(ValueError, match=r"more than 10 deep"):
        parse_hba("include loop", tmp_path)


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("hots all all all trust", "line 1: hots: must begin with one of local, host"),
        ("hostgssenc all all all trust", "encryption by GSSAPI is not possible"),
        ("host all all trust", "must be TYPE DATABASE USER ADDRESS METHOD"),
        ("local all trust", "must be TYPE DATABASE USER METHOD"),
        ("host all all example.org trust", "example.org: must be all, or an address"),
        ("host all all 10.0.0.0/33 trust", "10.0.0.0/33: is no network"),
        ("host all all 10.0.0.0 255.0.255.0 trust", "is no network"),
        ("host all all samenet trust", "samenet: is not possible here; write the network"),
        ("host all all samehost trust", "samehost: is not possible here; write the network"),
        ("host all all all ldap", "ldap: is not possible here"),
        ("host all all all peer", "peer: is for local lines"),
        ("hostnossl all all all cert", "cert: is for host and hostssl lines"),
        ("host samerole all all trust", "samerole: who is a member"),
        ("host all +admins all trust", "+admins: who is a member"),
        ("host all /^(x all trust", "/^(x: missing )"),
        ("include", "include: must be followed by one name"),
        ("include nowhere", "include nowhere: [Errno 2]"),
        ("include_dir nowhere", "include_dir nowhere: [Errno 2]"),
        ("host all all all md5 map=x", "map=x: the only option"),
        ("hostssl all all all cert clientcert=verify-full", "clientcert=verify-full: the only option"),
        ('host all "all all trust', "a quotation mark is not closed"),
        ("host all @missing all trust", "@missing: [Errno 2]"),
    ],
)
def test_what_is_not_understood(line: str, error: str) -> None:
    with pytest.raises(ValueError, match=r".") as raised:
        rules(line)
    assert error in str(raised.value)


def test_every_broken_line_is_told() -> None:
    with pytest.raises(ValueError, match=r"line 1: x.*; line 3: y"):
        rules("x\nhost all all all trust\ny")


def test_ident_maps() -> None:
    maps = parse_ident('m robot app\nm /^(.*)@example\\.org$ \\1\n\n# comment\nm root all\nn "/x" "all"\n')
    assert allows(maps, "m", "robot", "app")
    assert not allows(maps, "m", "robot", "other")
    assert allows(maps, "m", "joe@example.org", "joe")
    assert not allows(maps, "m", "joe@example.com", "joe")
    assert allows(maps, "m", "root", "anybody")
    assert allows(maps, "n", "/x", "all")
    assert not allows(maps, "n", "/x", "app")
    assert not allows(maps, "unknown", "robot", "app")
    maps = parse_ident("m /^(.*)@x$ /^team_\nm robot keep\\1\n")
    assert allows(maps, "m", "joe@x", "team_joe")
    assert not allows(maps, "m", "joe@x", "my_team_joe")
    assert not allows(maps, "m", "joe@y", "team_joe")
    assert allows(maps, "m", "robot", "keep\\1")
    assert allows(maps, "", "same", "same")
    assert not allows(maps, "", "one", "two")


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("m a", "must be MAP SYSTEM-NAME DATABASE-NAME"),
        ("m a b c", "must be MAP SYSTEM-NAME DATABASE-NAME"),
        ("m a,b", "must be MAP SYSTEM-NAME DATABASE-NAME"),
        ("m a b,c", "must be MAP SYSTEM-NAME DATABASE-NAME"),
        ("m a +admins", "+admins: who is a member"),
        ("m a /(", "/(: missing )"),
        ("m /( x", "/(: missing )"),
        ("include more.conf", "include: a file of maps includes no other files"),
        ("include more.conf other.conf", "include: a file of maps includes no other files"),
        ('include_if_exists "more.conf"', "include_if_exists: a file of maps includes no other files"),
        ("include_dir maps.d,", "include_dir: a file of maps includes no other files"),
        ("m @names app", "@names: a file of maps names no other files"),
        ("m robot @names", "@names: a file of maps names no other files"),
        ("@maps", "@maps: a file of maps names no other files"),
    ],
)
def test_broken_maps(line: str, error: str) -> None:
    with pytest.raises(ValueError, match=r"line 2: ") as raised:
        parse_ident(f"m root app\n{line}\n")
    assert error in str(raised.value)


def test_every_broken_map_is_told() -> None:
    with pytest.raises(ValueError, match=r"line 1: include: .*; line 3: @x: "):
        parse_ident("include x\nm root app\nm @x app")


def test_names_in_quotes_are_no_files() -> None:
    maps = parse_ident('"include" root app\nm "@robot" app\nm joe@example.org app\n')
    assert allows(maps, "include", "root", "app")
    assert allows(maps, "m", "@robot", "app")
    assert allows(maps, "m", "joe@example.org", "app")
