"""gRPC's interoperability cases by grpcio: an address, and the cases in order. It checks what it gets, writes a line of JSON
for each call, and ends when its standard input does. The few messages are encoded by hand."""

import json
import sys
import threading
import time

import grpc

SERVICE = "grpc.testing.TestService/"


def varint(n):
    out = b""
    while n > 127:
        out += bytes([n & 127 | 128])
        n >>= 7
    return out + bytes([n])


def number(field, n):
    return varint(field << 3) + varint(n)


def text(field, value):
    return varint(field << 3 | 2) + varint(len(value)) + value


def payload(field, size):
    return text(field, text(2, bytes(size)))


def status(field, message):
    return text(field, number(1, 2) + text(2, message.encode()))


def output(*sizes):
    """The parameters of a StreamingOutputCallRequest."""
    return b"".join(text(2, number(1, size)) for size in sizes)


class Client:
    def __init__(self, target):
        self.channel = grpc.insecure_channel(target, options=[("grpc.primary_user_agent", "rpc.py/1")])

    def tell(self, method, begun, sent, received, code, message=""):
        print(json.dumps({
            "method": method, "code": code.value[0], "message": message, "sent": sent, "received": received,
            "begun": begun * 1000, "ended": time.time() * 1000,
        }), flush=True)

    def do(self, kind, method, requests, metadata=None, code=grpc.StatusCode.OK, message=None, timeout=None, act=None):
        """Makes one call, hands its answers to act if there is one, and checks how it ends."""
        requests = list(requests)
        multi = getattr(self.channel, kind)("/" + method)
        begun = time.time()
        over = threading.Event()
        if kind.startswith("stream"):
            def stream():
                yield from requests
                if act:
                    over.wait(10)  # the client does not close its side
            argument = stream()
        else:
            argument = requests[0]
        answers, got, details = [], grpc.StatusCode.OK, ""
        try:
            if kind.endswith("_stream"):
                call = multi(argument, timeout=timeout, metadata=metadata)
                for answer in call:
                    answers.append(answer)
                    if act:
                        act(call)
            elif kind == "unary_unary":
                answers.append(multi(argument, timeout=timeout, metadata=metadata))
            else:
                call = multi.future(argument, timeout=timeout, metadata=metadata)
                if act:
                    act(call)
                answers.append(call.result())
        except grpc.RpcError as error:
            got, details = error.code(), error.details() or ""
        except grpc.FutureCancelledError:
            got = grpc.StatusCode.CANCELLED
        over.set()
        # The server knows the deadline, too, and may reset the stream first.
        assert got == code or code == grpc.StatusCode.DEADLINE_EXCEEDED and got == grpc.StatusCode.CANCELLED, (method, got, details)
        assert message is None or details == message, (method, details)
        framed = lambda all: sum(5 + len(one) for one in all)
        self.tell(method, begun, framed(requests), framed(answers), got, details)
        return answers

    def empty_unary(self):
        assert self.do("unary_unary", SERVICE + "EmptyCall", [b""]) == [b""]

    def large_unary(self):
        answer, = self.do("unary_unary", SERVICE + "UnaryCall", [number(2, 314159) + payload(3, 271828)])
        assert len(answer) > 314159

    def client_streaming(self):
        answer, = self.do("stream_unary", SERVICE + "StreamingInputCall", [payload(1, n) for n in (27182, 8, 1828, 45904)])
        assert answer == number(1, 74922), answer

    def server_streaming(self):
        sizes = [31415, 9, 2653, 58979]
        answers = self.do("unary_stream", SERVICE + "StreamingOutputCall", [output(*sizes)])
        assert len(answers) == 4

    def ping_pong(self):
        asked = [output(n) + payload(3, m) for n, m in ((31415, 27182), (9, 8), (2653, 1828), (58979, 45904))]
        assert len(self.do("stream_stream", SERVICE + "FullDuplexCall", asked)) == 4

    def empty_stream(self):
        assert self.do("stream_stream", SERVICE + "FullDuplexCall", []) == []

    def custom_metadata(self):
        metadata = [("x-grpc-test-echo-initial", "test_initial_metadata_value"), ("x-grpc-test-echo-trailing-bin", b"\x0a\x0b\x0a\x0b\x0a\x0b")]
        self.do("unary_unary", SERVICE + "UnaryCall", [number(2, 1) + payload(3, 1)], metadata)
        self.do("stream_stream", SERVICE + "FullDuplexCall", [output(1) + payload(3, 1)], metadata)

    def status_code_and_message(self):
        message = "test status message"
        self.do("unary_unary", SERVICE + "UnaryCall", [status(7, message)], code=grpc.StatusCode.UNKNOWN, message=message)
        self.do("stream_stream", SERVICE + "FullDuplexCall", [status(7, message)], code=grpc.StatusCode.UNKNOWN, message=message)

    def special_status_message(self):
        message = "\t\ntest with whitespace\r\nand Unicode BMP \u263a and non-BMP \U0001f608\t\n"
        self.do("unary_unary", SERVICE + "UnaryCall", [status(7, message)], code=grpc.StatusCode.UNKNOWN, message=message)

    def unimplemented_method(self):
        self.do("unary_unary", SERVICE + "UnimplementedCall", [b""], code=grpc.StatusCode.UNIMPLEMENTED)

    def unimplemented_service(self):
        self.do("unary_unary", "grpc.testing.UnimplementedService/UnimplementedCall", [b""], code=grpc.StatusCode.UNIMPLEMENTED)

    def cancel_after_begin(self):
        def cancel(call):
            time.sleep(0.02)  # the head goes out
            call.cancel()
        self.do("stream_unary", SERVICE + "StreamingInputCall", [], code=grpc.StatusCode.CANCELLED, act=cancel)

    def cancel_after_first_response(self):
        self.do("stream_stream", SERVICE + "FullDuplexCall", [output(31415) + payload(3, 27182)], code=grpc.StatusCode.CANCELLED,
                act=lambda call: call.cancel())

    def timeout_on_sleeping_server(self):
        self.do("stream_stream", SERVICE + "FullDuplexCall", [payload(3, 27182)], code=grpc.StatusCode.DEADLINE_EXCEEDED,
                timeout=0.05, act=lambda call: None)


client = Client(sys.argv[1])
for case in sys.argv[2].split(","):
    getattr(client, case)()
sys.stdin.read()
