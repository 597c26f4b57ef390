import { test } from "uvu";
import * as assert from "uvu/assert";
import {
  creationsAtOnce,
  planPool,
  type PoolView,
} from "../../lib/pool/plan.ts";

const desired = { minWarm: 2, maxWarm: 5, idleTimeoutMs: 300_000 };

/** Warm workers by idle time; negative for a stale worker. */
function view(idle: number[], more: Partial<PoolView> = {}): PoolView {
  return {
    warm: idle.map((ms, index) => ({
      id: `w${index}`,
      idleMs: Math.abs(ms),
      stale: ms < 0,
    })),
    creating: 0,
    creatingOthers: 0,
    pauseMs: 0,
    ...more,
  };
}

const cases: [string, PoolView, Partial<typeof desired>, number, string[]][] = [
  ["fills an empty pool", view([]), {}, 2, []],
  [
    "counts workers that are being created",
    view([1], { creating: 1 }),
    {},
    0,
    [],
  ],
  ["replaces a claimed worker", view([1]), {}, 1, []],
  ["changes nothing if the pool is as desired", view([1, 1]), {}, 0, []],
  ["creates at most four at once", view([]), { minWarm: 9, maxWarm: 9 }, 4, []],
  [
    "creates at most four at once, including those in progress",
    view([], { creating: 3 }),
    { minWarm: 9, maxWarm: 9 },
    1,
    [],
  ],
  [
    "creates at most four at once, including those of other images",
    view([], { creating: 1, creatingOthers: 2 }),
    { minWarm: 9, maxWarm: 9 },
    1,
    [],
  ],
  ["keeps a recent surplus", view([9, 9, 9, 9]), {}, 0, []],
  [
    "removes a surplus that was idle for too long, the oldest first",
    view([400_000, 9, 300_000, 350_000]),
    {},
    0,
    ["w0", "w3"],
  ],
  ["keeps the minimum regardless of age", view([9e9, 9e9]), {}, 0, []],
  ["removes workers above the maximum", view([3, 2, 1]), { maxWarm: 2 }, 0, [
    "w0",
  ]],
  [
    "empties the pool with a maximum of 0",
    view([3, 2]),
    { minWarm: 0, maxWarm: 0 },
    0,
    [
      "w0",
      "w1",
    ],
  ],
  ["caps the minimum to the maximum", view([]), { maxWarm: 1 }, 1, []],
  ["replaces stale workers", view([-1, -1]), {}, 2, ["w0", "w1"]],
  [
    "waits for stale workers to be removed instead of exceeding the maximum",
    view([-1, -1]),
    { maxWarm: 2 },
    0,
    ["w0", "w1"],
  ],
  ["creates no workers during a pause", view([], { pauseMs: 1 }), {}, 0, []],
  ["removes workers during a pause", view([-1], { pauseMs: 1 }), {}, 0, ["w0"]],
];

for (const [title, given, wanted, create, remove] of cases) {
  test(`planPool() ${title}`, () => {
    assert.equal(planPool(given, { ...desired, ...wanted }), {
      create,
      remove,
    });
  });
}

test("planPool() converges within its limits from any state", () => {
  const ages = [0, 299_999, 300_000, -1];
  for (let size = 0; size <= 5; size++) {
    for (let mask = 0; mask < ages.length ** size; mask++) {
      const idle = Array.from(
        { length: size },
        (_, at) =>
          ages[Math.floor(mask / ages.length ** at) % ages.length] ?? 0,
      );
      for (const [minWarm, maxWarm] of [[0, 0], [0, 3], [2, 3], [3, 3]]) {
        for (const creating of [0, 2]) {
          check(view(idle, { creating }), minWarm ?? 0, maxWarm ?? 0);
        }
      }
    }
  }
});

function check(given: PoolView, minWarm: number, maxWarm: number): void {
  const plan = planPool(given, { ...desired, minWarm, maxWarm });
  const left = given.warm.filter(({ id }) => !plan.remove.includes(id));
  const what = JSON.stringify({ given, minWarm, maxWarm, plan });
  const before = given.warm.length + given.creating;
  assert.ok(left.every(({ stale }) => !stale), what);
  assert.ok(left.length <= maxWarm, what);
  assert.ok(new Set(plan.remove).size === plan.remove.length, what);
  assert.ok(plan.create === 0 || before + plan.create <= maxWarm, what);
  assert.ok(
    given.creating + plan.create <= Math.max(creationsAtOnce, given.creating),
    what,
  );
  // Usable workers are removed only above the maximum.
  const useful = given.warm.filter(({ stale }) => !stale).length;
  assert.ok(left.length === useful || left.length >= minWarm, what);
}

test.run();
