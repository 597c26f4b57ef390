// reach.ts PORT ADDRESS...: tries to reach IPv4 addresses by TCP and UDP, also past the
// routes, and prints each way that worked: "tcp ADDRESS", "udp bound ADDRESS". A UDP
// packet counts as soon as the kernel accepts it.

type Call = (...args: (number | Uint8Array)[]) => number;

declare const Deno: {
  args: string[];
  dlopen(
    file: string,
    symbols: Record<string, unknown>,
  ): { symbols: Record<string, Call> };
};

const { symbols: libc } = Deno.dlopen("libc.so.6", {
  socket: { parameters: ["i32", "i32", "i32"], result: "i32" },
  setsockopt: {
    parameters: ["i32", "i32", "i32", "buffer", "u32"],
    result: "i32",
  },
  connect: { parameters: ["i32", "buffer", "u32"], result: "i32" },
  send: { parameters: ["i32", "buffer", "usize", "i32"], result: "i32" },
  close: { parameters: ["i32"], result: "i32" },
});

const SOL_SOCKET = 1;
const SO_DONTROUTE = 5;
const SO_BROADCAST = 6;
const SO_SNDTIMEO = 21;
const SO_BINDTODEVICE = 25;
const one = new Uint8Array([1, 0, 0, 0]);
const second = new Uint8Array(16).fill(1, 0, 1);
const device = new TextEncoder().encode("eth0\0");

const ways = {
  "": [],
  " bound": [[SO_BINDTODEVICE, device]],
  " unrouted": [[SO_DONTROUTE, one]],
  " bound unrouted": [[SO_BINDTODEVICE, device], [SO_DONTROUTE, one]],
} satisfies Record<string, [number, Uint8Array][]>;

const [port, ...addresses] = Deno.args;
for (const address of addresses) {
  for (const [kind, type] of [["tcp", 1], ["udp", 2]] as const) {
    for (const [way, options] of Object.entries(ways)) {
      if (reaches(type, address, options)) {
        console.log(`${kind}${way} ${address}`);
      }
    }
  }
}

function reaches(
  type: number,
  address: string,
  options: [number, Uint8Array][],
): boolean {
  const fd = libc["socket"]!(2, type, 0);
  const set = (name: number, value: Uint8Array) =>
    libc["setsockopt"]!(fd, SOL_SOCKET, name, value, value.length) === 0;
  set(SO_SNDTIMEO, second);
  set(SO_BROADCAST, one);
  // False without such a device.
  const isSet = options.every(([name, value]) => set(name, value));
  const to = new Uint8Array(16);
  to.set([2, 0, Number(port) >> 8, Number(port) & 255]);
  to.set(address.split(".").map(Number), 4);
  const connected = isSet && libc["connect"]!(fd, to, 16) === 0;
  const sent = connected && (type === 1 || libc["send"]!(fd, one, 4, 0) === 4);
  libc["close"]!(fd);
  return sent;
}
