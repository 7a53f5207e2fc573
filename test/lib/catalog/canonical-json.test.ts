import {describe, expect, it} from '@jest/globals';
import fc from 'fast-check';
import {canonicalJson, type Json} from '../../../src/lib/catalog/canonical-json.ts';

/** The same value with the members of every object in the other order. */
function reversed(value: Json): Json {
  if (Array.isArray(value)) return value.map(reversed);
  if (typeof value !== 'object' || value === null) return value;
  const members = Object.entries(value).map(([name, member]) => [name, reversed(member ?? null)] as const);
  return Object.fromEntries(members.reverse());
}

describe('canonical JSON', () => {
  it.each<[Json, string]>([
    [{b: 1, a: [true, null, {d: 'x', c: ''}]}, '{"a":[true,null,{"c":"","d":"x"}],"b":1}'],
    [{'10': 1, '9': 2, a: 3}, '{"10":1,"9":2,"a":3}'],
    [{a: undefined, b: 1}, '{"b":1}'],
    [[], '[]'],
    [{}, '{}'],
    [-0, '0'],
    [1e21, '1e+21'],
    ['\u0007\n"\\/é\u2028', '"\\u0007\\n\\"\\\\/é\u2028"'],
    // RFC 8785, 3.2.3: sorted by UTF-16 code units.
    [
      {'€': 1, '\r': 2, '\ufb33': 3, '1': 4, '😀': 5, '\u0080': 6, ö: 7},
      '{"\\r":2,"1":4,"\u0080":6,"ö":7,"€":1,"😀":5,"\ufb33":3}',
    ],
  ])('of %j is %s', (value, text) => {
    expect(canonicalJson(value)).toBe(text);
  });

  it('is the same whatever order members have, and means the same value', () => {
    fc.assert(
      fc.property(fc.jsonValue(), (value) => {
        const text = canonicalJson(value as Json);
        expect(canonicalJson(reversed(value as Json))).toBe(text);
        expect(JSON.parse(text)).toEqual(JSON.parse(JSON.stringify(value)));
      }),
    );
  });
});
