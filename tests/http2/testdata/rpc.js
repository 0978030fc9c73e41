// gRPC's interoperability cases by grpc-js: an address, and the cases in order. It checks what it gets, writes a line of JSON
// for each call, and ends when its standard input does. The few messages are encoded by hand.
const assert = require('assert');
const grpc = require('@grpc/grpc-js');

const service = 'grpc.testing.TestService/';
const now = () => performance.timeOrigin + performance.now();

const varint = (n) => {
  const out = [];
  for (; n > 127; n = Math.floor(n / 128)) out.push((n & 127) | 128);
  return Buffer.from([...out, n]);
};
const number = (field, n) => Buffer.concat([varint(field << 3), varint(n)]);
const text = (field, value) => Buffer.concat([varint((field << 3) | 2), varint(value.length), value]);
const payload = (field, size) => text(field, text(2, Buffer.alloc(size)));
const failing = (field, message) => text(field, Buffer.concat([number(1, 2), text(2, Buffer.from(message))]));
const output = (...sizes) => Buffer.concat(sizes.map((size) => text(2, number(1, size))));
const nothing = Buffer.alloc(0);
const framed = (all) => all.reduce((sum, one) => sum + 5 + one.length, 0);
const same = (value) => value;

const client = new grpc.Client(process.argv[2], grpc.credentials.createInsecure(), { 'grpc.primary_user_agent': 'rpc.js/1' });

// call makes one call; act is called when it has begun and at each answer, and then its own side stays open.
function call(kind, method, requests, { metadata, code = grpc.status.OK, message, timeout, act, begun: atBegin } = {}) {
  return new Promise((resolve, reject) => {
    const begun = now();
    const answers = [];
    const options = timeout ? { deadline: Date.now() + timeout } : {};
    const ended = (status) => {
      try {
        // The server knows the deadline, too, and may reset the stream first.
        const codes = code === grpc.status.DEADLINE_EXCEEDED ? [code, grpc.status.CANCELLED] : [code];
        assert(codes.includes(status.code), `${method}: ${status.code} ${status.details}`);
        if (message !== undefined) assert.strictEqual(status.details, message);
        process.stdout.write(JSON.stringify({
          method, code: status.code, message: status.code ? status.details : '', sent: framed(requests), received: framed(answers), begun, ended: now(),
        }) + '\n');
        resolve(answers);
      } catch (error) {
        reject(error);
      }
    };
    const callback = (error, answer) => { if (!error) answers.push(answer); };
    const given = metadata || new grpc.Metadata();
    let one;
    const [many, streamed] = kind.split('_').map((half) => half === 'stream');
    if (!many && !streamed) one = client.makeUnaryRequest('/' + method, same, same, requests[0], given, options, callback);
    else if (many && !streamed) one = client.makeClientStreamRequest('/' + method, same, same, given, options, callback);
    else if (!many) one = client.makeServerStreamRequest('/' + method, same, same, requests[0], given, options);
    else one = client.makeBidiStreamRequest('/' + method, same, same, given, options);
    one.on('status', ended);
    one.on('error', () => {}); // its status tells
    if (streamed) one.on('data', (answer) => { answers.push(answer); if (act) act(one); });
    if (many) {
      requests.forEach((request) => one.write(request));
      if (!act && !atBegin) one.end();
    }
    if (atBegin) atBegin(one);
  });
}

const echo = () => {
  const metadata = new grpc.Metadata();
  metadata.set('x-grpc-test-echo-initial', 'test_initial_metadata_value');
  metadata.set('x-grpc-test-echo-trailing-bin', Buffer.from('0a0b0a0b0a0b', 'hex'));
  return metadata;
};
const message = 'test status message';
const special = '\t\ntest with whitespace\r\nand Unicode BMP \u263a and non-BMP \u{1f608}\t\n';
const { UNKNOWN, UNIMPLEMENTED, CANCELLED, DEADLINE_EXCEEDED } = grpc.status;

const cases = {
  empty_unary: () => call('unary_unary', service + 'EmptyCall', [nothing]),
  large_unary: async () => {
    const [answer] = await call('unary_unary', service + 'UnaryCall', [Buffer.concat([number(2, 314159), payload(3, 271828)])]);
    assert(answer.length > 314159);
  },
  client_streaming: async () => {
    const [answer] = await call('stream_unary', service + 'StreamingInputCall', [27182, 8, 1828, 45904].map((n) => payload(1, n)));
    assert(answer.equals(number(1, 74922)));
  },
  server_streaming: async () => {
    assert.strictEqual((await call('unary_stream', service + 'StreamingOutputCall', [output(31415, 9, 2653, 58979)])).length, 4);
  },
  ping_pong: async () => {
    const asked = [[31415, 27182], [9, 8], [2653, 1828], [58979, 45904]].map(([n, m]) => Buffer.concat([output(n), payload(3, m)]));
    assert.strictEqual((await call('stream_stream', service + 'FullDuplexCall', asked)).length, 4);
  },
  empty_stream: () => call('stream_stream', service + 'FullDuplexCall', []),
  custom_metadata: async () => {
    await call('unary_unary', service + 'UnaryCall', [Buffer.concat([number(2, 1), payload(3, 1)])], { metadata: echo() });
    await call('stream_stream', service + 'FullDuplexCall', [Buffer.concat([output(1), payload(3, 1)])], { metadata: echo() });
  },
  status_code_and_message: async () => {
    await call('unary_unary', service + 'UnaryCall', [failing(7, message)], { code: UNKNOWN, message });
    await call('stream_stream', service + 'FullDuplexCall', [failing(7, message)], { code: UNKNOWN, message });
  },
  special_status_message: () => call('unary_unary', service + 'UnaryCall', [failing(7, special)], { code: UNKNOWN, message: special }),
  unimplemented_method: () => call('unary_unary', service + 'UnimplementedCall', [nothing], { code: UNIMPLEMENTED }),
  unimplemented_service: () => call('unary_unary', 'grpc.testing.UnimplementedService/UnimplementedCall', [nothing], { code: UNIMPLEMENTED }),
  cancel_after_begin: () => call('stream_unary', service + 'StreamingInputCall', [], {
    code: CANCELLED, begun: (one) => setTimeout(() => one.cancel(), 20), // the head goes out
  }),
  cancel_after_first_response: () => call('stream_stream', service + 'FullDuplexCall', [Buffer.concat([output(31415), payload(3, 27182)])], {
    code: CANCELLED, act: (one) => one.cancel(),
  }),
  timeout_on_sleeping_server: () => call('stream_stream', service + 'FullDuplexCall', [payload(3, 27182)], {
    code: DEADLINE_EXCEEDED, timeout: 50, act: () => {},
  }),
};

process.stdin.resume();
(async () => {
  for (const name of process.argv[3].split(',')) await cases[name]();
  process.stdin.on('end', () => client.close());
})().catch((error) => { console.error(error); process.exit(1); });
