"""SeaweedFS, an S3 server that keeps its objects on disk, so that it can be killed and started again."""

import json
import secrets
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import boto3

from tests.grid.storage.s3_server import free_port

PORTS = ("master", "volume", "filer", "s3")


class ObjectServer:
    """Listens on free ports of 127.0.0.1 alone; ``environment`` has the key without which it refuses everything."""

    def __init__(self, folder: Path, program: Path) -> None:
        self.folder, self.program, self.process = folder, program, None
        self.log = folder / "server.txt"
        (folder / "data").mkdir(parents=True)
        key, secret = secrets.token_hex(8), secrets.token_hex(16)
        self.environment = {"AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret, "AWS_REGION": "us-east-1"}
        identity = {
            "name": "grid",
            "credentials": [{"accessKey": key, "secretKey": secret}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }
        self.identities = folder / "identities.json"
        self.identities.touch(mode=0o600)
        self.identities.write_text(json.dumps({"identities": [identity]}))
        self.ports = {name: (free_port(), free_port()) for name in PORTS}
        self.port = self.ports["s3"][0]

    def start(self) -> None:
        command = [str(self.program), "-logtostderr", "server", "-filer", "-s3", f"-dir={self.folder}/data"]
        command += ["-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-master.electionTimeout=2s"]
        command += ["-master.telemetry=false", "-master.volumeSizeLimitMB=64"]
        command += [f"-s3.config={self.identities}", "-s3.port.iceberg=0", "-s3.port.lance=0", "-volume.max=50"]
        for name, (http, grpc) in self.ports.items():
            command += [f"-{name}.port={http}", f"-{name}.port.grpc={grpc}"]
        with self.log.open("a") as output:
            self.process = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)
        end = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/", timeout=2).close()
            except urllib.error.HTTPError:
                return  # it answers, and wants to know who asks
            except OSError:
                assert self.process.poll() is None, self.log.read_text()[-2000:]
                assert time.monotonic() < end
                time.sleep(0.1)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def client(self):
        """Boto3's, for looking at what is kept."""
        key, secret, region = self.environment.values()
        there = {"endpoint_url": f"http://127.0.0.1:{self.port}", "region_name": region}
        return boto3.client("s3", aws_access_key_id=key, aws_secret_access_key=secret, **there)

    def tidy(self) -> None:
        """Remove the sockets that a killed one leaves in /tmp."""
        for port in (port for pair in self.ports.values() for port in pair):
            for socket in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
                socket.unlink(missing_ok=True)
