"""An HTTPS server on this host with files of the test, as a caller's own web server would have them."""

import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

HOST = "127.0.0.1"


@dataclass
class Gallery:
    """`files` by path; what else is asked for is not there."""

    port: int
    certificate: Path
    files: dict[str, bytes] = field(default_factory=dict)

    def show(self, name: str, content: bytes) -> str:
        """Put a file on the server; its URL."""
        self.files[f"/{name}"] = content
        return f"https://{HOST}:{self.port}/{name}"


def signed_by_itself(folder: Path) -> Path:
    """A new certificate and its key in one file."""
    argv = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=gallery"]
    argv += ["-addext", f"subjectAltName=IP:{HOST}", "-keyout", "key.pem", "-out", "cert.pem"]
    subprocess.run(argv, cwd=folder, check=True, capture_output=True)
    both = folder / "both.pem"
    both.write_bytes((folder / "cert.pem").read_bytes() + (folder / "key.pem").read_bytes())
    return both


@contextmanager
def opened(folder: Path) -> Iterator[Gallery]:
    certificate = signed_by_itself(folder)

    class Files(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = gallery.files.get(self.path)
            self.send_response(404 if content is None else 200)
            self.send_header("Content-Length", str(len(content or b"")))
            self.end_headers()
            self.wfile.write(content or b"")

        def log_message(self, *_: object) -> None:
            """Nobody reads it."""

    with ThreadingHTTPServer((HOST, 0), Files) as server:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(certificate)
        server.socket = tls.wrap_socket(server.socket, server_side=True)
        gallery = Gallery(server.server_port, certificate)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield gallery
        finally:
            server.shutdown()
            thread.join()
