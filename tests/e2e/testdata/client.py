"""An HTTP client by http.client, or by urllib where the plan's connections say "urllib". The first argument is a plan in
JSON; for each request it writes a line of JSON. It ends when its standard input does."""

import http.client
import json
import sys
import time
import urllib.error
import urllib.request


def tell(request, response, sock, begun, size):
    local, peer = sock.getsockname(), sock.getpeername()
    body = response.read()
    print(json.dumps({
        "id": request["id"], "method": request["method"], "target": request["target"], "status": response.status,
        "sent": size, "received": len(body), "begun": begun * 1000, "ended": time.time() * 1000,
        "local": local[0], "local_port": local[1], "peer": peer[0], "peer_port": peer[1],
    }), flush=True)


def by_http_client(connection):
    conn = http.client.HTTPConnection(connection["address"], connection["port"], timeout=10)
    for request in connection["requests"]:
        begun = time.time()
        body = b"y" * request.get("body", 0)
        chunked = request.get("chunked", False)
        conn.putrequest(request["method"], request["target"], skip_host=True, skip_accept_encoding=True)
        headers = {"Host": connection["host"], "User-Agent": request["id"], **request.get("headers", {})}
        if request.get("expect"):
            headers["Expect"] = "100-continue"
        if chunked:
            headers["Transfer-Encoding"] = "chunked"
        elif body:
            headers["Content-Length"] = str(len(body))
        for name, value in headers.items():
            conn.putheader(name, value)
        conn.endheaders([body[: len(body) // 2], body[len(body) // 2 :]] if body else None, encode_chunked=chunked)
        sock = conn.sock
        tell(request, conn.getresponse(), sock, begun, len(body))
    conn.close()


def by_urllib(connection):
    for request in connection["requests"]:
        begun = time.time()
        body = b"y" * request.get("body", 0)
        message = urllib.request.Request(
            "http://" + connection["host"] + request["target"], data=body or None, method=request["method"],
            headers={"User-Agent": request["id"], **request.get("headers", {})})
        try:
            response = urllib.request.urlopen(message, timeout=10)
            sock = response.fp.raw._sock
        except urllib.error.HTTPError as error:
            response = error  # it closes its connection when it goes
            sock = response.fp.fp.raw._sock
        tell(request, response, sock, begun, len(body))


for connection in json.loads(sys.argv[1]):
    by_urllib(connection) if connection.get("urllib") else by_http_client(connection)
sys.stdin.read()
