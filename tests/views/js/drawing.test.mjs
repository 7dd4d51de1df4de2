import assert from "node:assert/strict";
import { test } from "node:test";

import { RDBU, VIRIDIS, pixels } from "../../../tssan_viz/views/js/colour-maps.js";
import { blend, contrast, hex, inkOn, rgb } from "../../../tssan_viz/views/js/colours.js";
import { colourIndex, ranges, ticks } from "../../../tssan_viz/views/js/heat-maps.js";
import { layOut } from "../../../tssan_viz/views/js/layout.js";
import { createModel } from "../../../tssan_viz/views/js/model.js";
import { bonesBySide, fitPoses, poseScale } from "../../../tssan_viz/views/js/pose.js";

test("colours are read and mixed", () => {
  assert.deepEqual(rgb("#1d5fd1"), [29, 95, 209]);
  assert.deepEqual(rgb("#fff"), [255, 255, 255]);
  assert.deepEqual(rgb("rgb(1, 2, 3)"), [1, 2, 3]);
  assert.throws(() => rgb("red"), /not a colour/);
  assert.equal(hex(blend([0, 0, 0], [255, 255, 255], 0.5)), "#808080");
  assert.ok(Math.abs(contrast([0, 0, 0], [255, 255, 255]) - 21) < 1e-9);
});

test("ink on any shade of the accent can be read", () => {
  for (const [accent, paper] of [["#1d5fd1", "#ffffff"], ["#82aaff", "#16191e"]]) {
    for (let share = 0; share <= 1; share += 0.01) {
      const ground = blend(rgb(accent), rgb(paper), 0.8 * share);
      assert.ok(contrast(rgb(inkOn(ground)), ground) >= 4.5, `${accent} at ${share}`);
    }
  }
});

test("a table becomes pixels", () => {
  assert.equal(VIRIDIS.length, 256 * 6);
  assert.equal(RDBU.length, 256 * 6);
  assert.deepEqual([...new Uint8Array(pixels("102030".repeat(256)).buffer).slice(0, 4)], [16, 32, 48, 255]);
});

test("each kind has one scale", () => {
  const values = Float32Array.from([0.1, 0.2, 0.5, 0.3, -0.4, 0.1]);
  assert.deepEqual(ranges(values, [3, 1, 2], ["seq", "seq", "div"]), {
    seq: [Math.fround(0.1), 0.5],
    div: [-Math.fround(0.4), Math.fround(0.4)],
  });
  assert.equal(colourIndex(-1, [-1, 1]), 0);
  assert.equal(colourIndex(1, [-1, 1]), 255);
  assert.equal(colourIndex(0, [-1, 1]), 128);
  assert.equal(colourIndex(0, [0, 0]), 0);
  assert.equal(colourIndex(0, [0, 0], "seq"), 0);
  assert.equal(colourIndex(0, ranges(Float32Array.from([0, 0]), [1, 1, 2], ["div"]).div, "div"), 128);
  assert.deepEqual(ticks(32, 7), [0, 5, 10, 15, 20, 25, 30]);
});

for (const orientation of ["horizontal", "vertical"]) {
  for (const frames of [{ query: 32, key: 32 }, { query: 197, key: 197 }, { query: 4, key: 16 }]) {
    test(`every frame is found where it is drawn: ${orientation}, ${frames.query} x ${frames.key}`, () => {
      const layout = layOut(1240, frames, orientation, 1.9);
      for (const side of ["query", "key"]) {
        for (let frame = 0; frame < frames[side]; frame++) {
          const { x, y, width, height } = layout.box(side, frame);
          assert.deepEqual(layout.frameAt(x + width / 2, y + height / 2), { side, frame });
          assert.ok(x >= 0 && y >= 0 && x + width <= layout.width + 1 && y + height <= layout.height + 1);
        }
      }
      assert.equal(layout.frameAt(layout.width / 2, layout.height / 2), null);
    });
  }
}

test("frames become rows where the page is narrow", () => {
  const frames = { query: 32, key: 32 };
  assert.ok(layOut(1240, frames, "auto", 1.9).horizontal);
  assert.ok(!layOut(400, frames, "auto", 1.9).horizontal);
  assert.ok(layOut(400, frames, "auto", 1.9).width <= 400);
  assert.ok(layOut(400, { query: 8, key: 8 }, "auto", 1.9).horizontal);
});

test("poses share one scale and fill their room", () => {
  // One person, one segment, two frames, two joints: standing (2 high), then lying somewhere else.
  const poses = Float32Array.from([0, 0, 0, 2, 5, 0, 7, 0]);
  const fit = fitPoses(poses, [1, 1, 2, 2, 2], 0, [0], false, 1);
  assert.deepEqual([...fit.centre], [0, 6]);
  assert.equal(fit.height, 2);
  assert.equal(fit.middle, 1);
  assert.equal(fit.sign, -1);
  assert.ok(poseScale(fit, { width: 1000, height: 100 }) * fit.height <= 100);
  const missing = fitPoses(Float32Array.from([NaN, NaN]), [1, 1, 1, 1, 2], 0, [0], true, 1);
  assert.ok(Number.isFinite(poseScale(missing, { width: 10, height: 10 })));
});

test("a bone belongs to its limb, whichever way it is written", () => {
  const groups = bonesBySide([[0, 1], [1, 0], [0, 2]], ["centre", "left", "right"]);
  assert.deepEqual(groups, { left: [[0, 1], [1, 0]], centre: [], right: [[0, 2]] });
  assert.deepEqual(bonesBySide([[0, 1]], undefined).centre, [[0, 1]]);
});

test("the page's own model tells those who listen", () => {
  const model = createModel({ layer: 1 });
  let told = 0;
  const listener = () => told++;
  model.on("change:layer", listener);
  model.set("layer", 2);
  model.off("change:layer", listener);
  model.set("layer", 3);
  model.save_changes();
  assert.equal(told, 1);
  assert.equal(model.get("layer"), 3);
});
