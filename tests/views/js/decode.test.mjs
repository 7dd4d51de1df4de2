import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { bytesOf, decode, halfTable } from "../../../tssan_viz/views/js/decode.js";

// Written by numpy: float32 of all 65,536 float16 bit patterns.
const expected = readFileSync(`${process.env.TSSAN_FIXTURES}/float32.bin`);
const fixture = new Float32Array(expected.buffer.slice(expected.byteOffset, expected.byteOffset + expected.length));
const bits = Uint16Array.from({ length: 65536 }, (_, i) => i);

function assertSame(values, name) {
  assert.equal(values.length, fixture.length, name);
  for (let i = 0; i < fixture.length; i++) {
    assert.ok(Object.is(values[i], fixture[i]), `${name}, bits ${i}: ${values[i]}, not ${fixture[i]}`);
  }
}

test("every float16 has numpy's value", () => assertSame(halfTable(), "table"));

test("all hosts' ways of handing bytes over give the same", () => {
  const meta = { dtype: "f2", shape: [256, 256] };
  const bytes = new Uint8Array(bits.buffer);
  const shifted = new Uint8Array(bytes.length + 1);
  shifted.set(bytes, 1);
  const ways = {
    base64: Buffer.from(bytes).toString("base64"),
    arrayBuffer: bits.buffer,
    dataView: new DataView(bits.buffer),
    odd: new DataView(shifted.buffer, 1),
    typed: bits,
  };
  for (const [name, data] of Object.entries(ways)) assertSame(decode(meta, data), name);
});

test("float32 passes as it is", () => {
  assertSame(decode({ dtype: "f4", shape: [65536] }, fixture), "f4");
});

test("what does not fit is refused in words", () => {
  assert.throws(() => decode({ dtype: "f2", shape: [3] }, bits.buffer), /131072 bytes came, 6 are due/);
  assert.throws(() => decode({ dtype: "u1", shape: [3] }, bits.buffer), /u1 is not known/);
  assert.throws(() => bytesOf([1, 2]), /must come as/);
});
