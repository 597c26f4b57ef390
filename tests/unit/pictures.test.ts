import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { pictures, render, sources } from "../../docs/pictures.ts";

for (const source of sources()) {
  test(`${source} is what its pictures were rendered from`, async () => {
    for (const [name, svg] of await render(source)) {
      const committed = readFileSync(join(pictures, name), "utf8");
      assert.ok(committed === svg, `${name} is out of date: make pictures`);
    }
  });
}

test("every picture has a source", async () => {
  const rendered = await Promise.all(sources().map(render));
  const svgs = readdirSync(pictures).filter((name) =>
    name.endsWith(".svg") && !name.startsWith("recording.")
  );
  assert.ok(svgs.length >= 8);
  assert.equal(
    svgs.sort(),
    rendered.flatMap((files) => [...files.keys()]).sort(),
  );
});

test("the recording shows no path of the machine that it was made on", () => {
  for (const theme of ["light", "dark"]) {
    const svg = readFileSync(
      join(pictures, `recording.${theme}.svg`),
      "utf8",
    );
    assert.ok(svg.includes("/home/me/code/app"));
    assert.not.match(svg, /\/tmp\/|\/root\//);
  }
});

test.run();
