/** Ways to damage bytes that somebody might trust. */
import type {Random} from '../support/random.ts';

type Mutation = (bytes: Buffer, random: Random, others: readonly Buffer[]) => Buffer;

const anywhere = (bytes: Buffer, random: Random) => random.below(bytes.length + 1);
/** Headers are at the beginning and marks at the end: half of the places are there. */
const somewhere = (bytes: Buffer, random: Random) => {
  const near = Math.min(bytes.length, 400);
  const places = [random.below(near + 1), bytes.length - random.below(near + 1), anywhere(bytes, random)];
  return places[random.below(3)] ?? 0;
};

/** Values at which counts and lengths overflow. */
const numbers = [0, 1, 0x7f, 0x80, 0xff, 0x7fff, 0x8000, 0xffff, 0x7fffffff, 0x80000000, 0xffffffff];

const mutations: Mutation[] = [
  (bytes, random) => {
    const altered = Buffer.from(bytes);
    for (let count = 1 + random.below(8); count > 0; count -= 1) {
      const at = Math.min(somewhere(bytes, random), bytes.length - 1);
      altered[at] = (altered[at] ?? 0) ^ (1 << random.below(8));
    }
    return altered;
  },
  (bytes, random) => bytes.subarray(0, somewhere(bytes, random)),
  (bytes, random) => bytes.subarray(somewhere(bytes, random)),
  (bytes, random) => Buffer.concat([bytes, random.bytes(1 + random.below(64))]),
  (bytes, random) => {
    const at = somewhere(bytes, random);
    return Buffer.concat([bytes.subarray(0, at), random.bytes(1 + random.below(40)), bytes.subarray(at)]);
  },
  (bytes, random) => {
    const [from, to] = [somewhere(bytes, random), somewhere(bytes, random)].sort((a, b) => a - b) as [number, number];
    return Buffer.concat([bytes.subarray(0, from), bytes.subarray(to)]);
  },
  (bytes, random) => {
    const [from, to] = [somewhere(bytes, random), somewhere(bytes, random)].sort((a, b) => a - b) as [number, number];
    return Buffer.concat([bytes.subarray(0, to), bytes.subarray(from)]);
  },
  (bytes, random, others) => {
    const other = others[random.below(others.length)] ?? bytes;
    return Buffer.concat([bytes.subarray(0, somewhere(bytes, random)), other.subarray(somewhere(other, random))]);
  },
  (bytes, random) => {
    const altered = Buffer.from(bytes);
    const value = Buffer.alloc(4);
    value.writeUInt32BE(numbers[random.below(numbers.length)] ?? 0);
    const width = [1, 2, 4][random.below(3)] ?? 4;
    value.copy(altered, Math.max(0, Math.min(somewhere(bytes, random), bytes.length - width)), 4 - width);
    return altered;
  },
  () => Buffer.alloc(0),
  (bytes, random) => random.bytes(Math.min(bytes.length, 1 + random.below(500))),
];

/** One of many damages to some bytes, or the bytes of another object. */
export function damaged(bytes: Buffer, random: Random, others: readonly Buffer[]): Buffer {
  return mutations[random.below(mutations.length)]?.(bytes, random, others) ?? bytes;
}

type Json = null | boolean | number | string | Json[] | {[name: string]: Json};

const strangeText = ['', '\u001b]0;x\u0007', '../../etc/passwd', '__proto__', 'constructor', '\ud800', 'x'.repeat(1e5)];

function strangeValue(random: Random): Json {
  let deep: Json = [];
  for (let depth = random.below(2) * 1000; depth > 0; depth -= 1) deep = [deep];
  const values: Json[] = [null, true, -1, 1.5, 1e308, 2 ** 53, [], {}, deep, [null], {toString: 1}];
  values.push(...strangeText);
  return values[random.below(values.length)] ?? null;
}

/** A JSON document with one to three of its members changed, removed, doubled or added. */
export function damagedJson(bytes: Buffer, random: Random): Buffer {
  const json = JSON.parse(bytes.toString()) as Json;
  for (let count = 1 + random.below(3); count > 0; count -= 1) alter(json, random);
  return Buffer.from(JSON.stringify(json));
}

function alter(json: Json, random: Random): void {
  if (typeof json !== 'object' || json === null) return;
  const names = Object.keys(json);
  const name = names[random.below(names.length)];
  const holder = json as {[name: string]: Json};
  const value = name === undefined ? undefined : holder[name];
  if (name === undefined || random.below(8) === 0) {
    Object.defineProperty(holder, strangeText[random.below(4)] ?? 'x', {
      value: strangeValue(random),
      enumerable: true,
      writable: true,
      configurable: true,
    });
  } else if (typeof value === 'object' && value !== null && random.below(3) > 0) alter(value, random);
  else if (random.below(4) === 0) delete holder[name];
  else holder[name] = strangeValue(random);
}
