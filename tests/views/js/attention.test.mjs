import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import * as attention from "../../../tssan_viz/views/js/attention.js";

// Written by numpy, with its own answers.
const { size, weights, cases } = JSON.parse(readFileSync(`${process.env.TSSAN_FIXTURES}/attention.json`));
const values = Float32Array.from(weights);

for (const { heads, focus, limit, lines, perFrame, mean } of cases) {
  const name = `heads ${heads}, focus ${JSON.stringify(focus)}, at most ${limit}`;
  test(`strongest lines: ${name}`, () => {
    const found = attention.strongestLines(values, size, heads, focus, limit);
    const got = [];
    for (let i = 0; i < found.weight.length; i++) {
      got.push([found.head[i], found.query[i], found.key[i]].join());
      if (i) assert.ok(found.weight[i - 1] <= found.weight[i], "weakest first");
    }
    assert.deepEqual(got.sort(), lines.map((line) => line.join()).sort());
  });
  test(`weights per frame: ${name}`, () => {
    const found = attention.weightsPerFrame(values, size, heads, focus);
    assert.equal(found.length, perFrame.length);
    found.forEach((row, h) => row.forEach((value, i) => assert.ok(Math.abs(value - perFrame[h][i]) < 1e-6)));
    const average = attention.meanOverHeads(found, mean.length);
    average.forEach((value, i) => assert.ok(Math.abs(value - mean[i]) < 1e-6));
  });
}

test("ties at the limit do not let more lines through", () => {
  const flat = new Float32Array(2 * 4 * 4).fill(0.25);
  assert.equal(attention.strongestLines(flat, [2, 4, 4], [0, 1], null, 5).weight.length, 5);
});

test("no head, no line", () => {
  assert.equal(attention.strongestLines(values, size, [], null).weight.length, 0);
  assert.deepEqual(attention.weightsPerFrame(values, size, [], null), []);
});

test("weights are said without false zeros", () => {
  assert.equal(attention.weightText(0), "0");
  assert.equal(attention.weightText(0.12345), "0.123");
  assert.equal(attention.weightText(0.00012), "1.2e-4");
  assert.deepEqual(attention.largest([1, 3, 2, 3], 3), [1, 3, 2]);
});

test("lines can be asked for above a weight", () => {
  const some = Float32Array.from([0.1, 0.2, 0.3, 0.4]);
  const lines = attention.strongestLines(some, [1, 2, 2], [0], null, 10, some[1]);
  assert.deepEqual([...lines.weight], [some[2], some[3]]);
  assert.equal(lines.total, 4);
});

test("weights are drawn from even attention upwards", () => {
  assert.equal(attention.aboveEven(0.5, 0.25, 0.5), 1);
  assert.equal(attention.aboveEven(0.375, 0.25, 0.5), 0.5);
  assert.equal(attention.aboveEven(0.1, 0.25, 0.5), 0);
  assert.equal(attention.aboveEven(0.1, 0.25, 0.2), 0.5, "nothing above even: as a share of the strongest");
  assert.equal(attention.aboveEven(0, 0.25, 0), 0);
});
