"""PostgreSQL and MariaDB servers that tests start, kill and start again."""

from __future__ import annotations

import atexit
import contextlib
import os
import pwd
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pymysql

from engine.debian import programs
from engine.sql_server import (
    NOBODY,
    Certificates,
    Server,
    answers,
    ask_postgresql,
    free_port,
    give_away,
    kill_tree,
    run_server,
    unprivileged,
    wait_for,
)


class PostgreSql(Server):
    """The server of the package pgserver; it has no TLS."""

    name = "postgresql"

    def __init__(self, directory: Path) -> None:
        import pgserver

        before = os.environ.get("XDG_RUNTIME_DIR")
        os.environ["XDG_RUNTIME_DIR"] = str(directory)  # where pgserver keeps its lock
        try:
            self._server = pgserver.get_server(directory / "data")  # as root it runs as a user of its own
        finally:
            os.environ.pop("XDG_RUNTIME_DIR")
            if before is not None:
                os.environ["XDG_RUNTIME_DIR"] = before

    @property
    def url(self) -> str:
        return str(self._server.get_uri())

    @property
    def socket(self) -> str:
        return str(self._server.get_postmaster_info().socket_path)

    def start(self) -> None:
        self._server.ensure_postgres_running()

    def stop(self) -> None:
        """Stop it at once: connections break."""
        from pgserver._commands import pg_ctl

        pg_ctl(["-w", "-m", "immediate", "stop"], pgdata=self._server.pgdata, user=self._server.system_user)

    def kill(self) -> None:
        kill_tree(self._server.get_pid())

    def close(self) -> None:
        self._server.cleanup()
        atexit.unregister(self._server._cleanup)  # it would make the directory again

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        return ask_postgresql(self.url, statement)

    def sleeping(self) -> int:
        return int(self.query("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'")[0][0])


class DebianPostgreSql(Server):
    """Debian's server, which has TLS; over TCP it takes nothing else."""

    name = "postgresql"
    password = "hunter@2/ü"

    def __init__(self, directory: Path) -> None:
        found = programs("postgresql", "usr/lib/postgresql/*/bin/postgres", without="llvm|clang|perl|ssl-cert")
        if found.root != Path("/"):  # its user may not enter the cache
            shutil.copytree(found.root, directory / "programs", symlinks=True)
            found = type(found)(directory / "programs")
        binaries = found.find("usr/lib/postgresql/*/bin/postgres").parent
        self._environment = found.environment | {"LC_ALL": "C.UTF-8", "PGUSER": "postgres"}
        self._directory, self.port = directory, free_port()
        self.certificates = Certificates(directory)
        self._postgres = binaries / "postgres"
        data = directory / "data"
        data.mkdir(mode=0o700)
        give_away(data)
        give_away(directory)
        initdb = [binaries / "initdb", "-D", data, "-U", "postgres", "--auth=trust", "-E", "UTF8", "--no-sync"]
        subprocess.run(initdb, check=True, env=self._environment, capture_output=True, **unprivileged())
        (data / "pg_hba.conf").write_text(
            "local all all trust\nhostssl all mutual 127.0.0.1/32 cert\nhostssl all all 127.0.0.1/32 scram-sha-256\n"
        )
        self.start()
        self.query(f"CREATE USER prokos PASSWORD '{self.password}'")
        self.query("GRANT ALL ON SCHEMA public TO prokos")
        self.query("CREATE USER mutual")

    @property
    def url(self) -> str:
        return f"postgresql://postgres@/postgres?host={self._directory}&port={self.port}"

    def start(self) -> None:
        settings = {
            "unix_socket_directories": self._directory,
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "ssl": "on",
            "ssl_cert_file": self.certificates.files["certificate"],
            "ssl_key_file": self.certificates.files["key"],
            "ssl_ca_file": self.certificates.files["authority"],
            "fsync": "off",
        }
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        self._process = run_server(
            [self._postgres, "-D", self._directory / "data", *options], self._environment, self._directory
        )
        wait_for("PostgreSQL", lambda: answers(self, self._process))

    def kill(self) -> None:
        kill_tree(self._process.pid)
        self._process.wait()

    def close(self) -> None:
        self.kill()

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        return ask_postgresql(self.url, statement)

    def sleeping(self) -> int:
        return int(self.query("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'")[0][0])


class MariaDb(Server):
    """Debian's server."""

    name = "mysql"
    password = "hunter@2/ü"

    def __init__(self, directory: Path, *options: str) -> None:
        found = programs("mariadb-server-core", "usr/sbin/mariadbd")
        self._environment, self._directory, self.port = found.environment, directory, free_port()
        self.certificates = Certificates(directory)
        share = directory / "share"
        shutil.copytree(found.find("usr/share/mysql"), share)  # its user may not enter the cache
        data = directory / "data"
        data.mkdir(mode=0o700)
        give_away(data)
        give_away(directory)
        self._command = [
            found.find("usr/sbin/mariadbd"),
            "--no-defaults",
            f"--user={NOBODY if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name}",
            f"--datadir={data}",
            f"--lc-messages-dir={share}",
            f"--character-sets-dir={share / 'charsets'}",
            "--innodb-log-file-size=8M",
            "--innodb-buffer-pool-size=16M",
            "--silent-startup",
            *options,
        ]
        tables = "".join((share / f"mysql_system_tables{part}.sql").read_text() for part in ("", "_data"))
        script = f"CREATE DATABASE mysql;\nCREATE DATABASE orders;\nUSE mysql;\nSET @auth_root_socket=NULL;\n{tables}"
        subprocess.run(
            [*self._command, "--bootstrap"],
            input=script.encode(),
            check=True,
            env=self._environment,
            capture_output=True,
        )
        self.start()
        self.query(f"CREATE USER prokos IDENTIFIED BY '{self.password}'")
        self.query("GRANT ALL ON orders.* TO prokos")
        self.query("CREATE USER mutual REQUIRE X509")
        self.query("GRANT ALL ON orders.* TO mutual")

    @property
    def socket(self) -> str:
        return str(self._directory / "s")

    @property
    def url(self) -> str:
        return f"mariadb://root@/orders?unix_socket={self.socket}"

    def start(self) -> None:
        files = self.certificates.files
        listening = [f"--socket={self.socket}", f"--port={self.port}", "--bind-address=127.0.0.1"]
        encrypted = [
            f"--ssl-cert={files['certificate']}",
            f"--ssl-key={files['key']}",
            f"--ssl-ca={files['authority']}",
        ]
        self._process = run_server(
            [*self._command, *listening, *encrypted], self._environment, self._directory, drop=False
        )
        wait_for("MariaDB", lambda: answers(self, self._process))

    @property
    def pid(self) -> int:
        return self._process.pid

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        self.kill()

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        arguments = {"unix_socket": self.socket, "user": "root", "database": "orders", "autocommit": True}
        with (
            contextlib.closing(pymysql.connect(ssl_disabled=True, **arguments)) as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute(statement)
            return list(cursor.fetchall())

    def sleeping(self) -> int:
        return int(self.query("SELECT count(*) FROM information_schema.processlist WHERE state = 'User sleep'")[0][0])
