import {createSecretKey} from 'node:crypto';
import {describe, expect, it} from '@jest/globals';
import fc from 'fast-check';
import {
  type DocumentReading,
  type Manifest,
  readManifest,
  type SealingKey,
  sealManifest,
} from '../../../src/lib/catalog/manifest.ts';
import {sampleKey, sampleManifest, sealingKey} from './backup.ts';

type Path = (string | number)[];

const otherKey: SealingKey = {fingerprint: 'fedcba9876543210', key: createSecretKey(Buffer.alloc(32, 8))};
const read = (text: string | Buffer, key = sampleKey, keys = [sealingKey]): DocumentReading<Manifest> =>
  readManifest(Buffer.from(text), key, keys);
const sealedText = sealManifest(sampleManifest, sealingKey);
const sealedJson = () => JSON.parse(sealedText) as Record<string, unknown>;

/** Every place in a JSON value that holds something. */
function places(value: unknown, path: Path = []): Path[] {
  if (typeof value !== 'object' || value === null) return [path];
  return [
    ...(path.length ? [path] : []),
    ...Object.entries(value).flatMap(([name, member]) =>
      places(member, [...path, Array.isArray(value) ? Number(name) : name]),
    ),
  ];
}

function changed(path: Path, change: (old: unknown) => unknown): string {
  const json = sealedJson();
  let at: Record<string, unknown> = json;
  for (const name of path.slice(0, -1)) at = at[name] as Record<string, unknown>;
  const last = path.at(-1) ?? '';
  const value = change(at[last]);
  if (value === undefined && Array.isArray(at)) at.splice(Number(last), 1);
  else if (value === undefined) delete at[last];
  else at[last] = value;
  return JSON.stringify(json);
}

/** Another value of the same kind, so that only the seal can tell. */
function another(value: unknown): unknown {
  if (typeof value === 'string') return value.startsWith('a') ? `b${value.slice(1)}` : `a${value.slice(1)}`;
  if (typeof value === 'number') return value + 1;
  if (typeof value === 'boolean') return !value;
  return Array.isArray(value) ? [...value, ...value] : {};
}

describe('a sealed manifest', () => {
  it('reads back as it was written', () => {
    expect(read(sealedText)).toEqual({
      is: 'document',
      document: sampleManifest,
      json: sampleManifest,
      seal: 'verified',
      sealedBy: sealingKey.fingerprint,
    });
    expect(read(sealedText, sampleKey, [otherKey, sealingKey])).toMatchObject({is: 'document', seal: 'verified'});
  });

  it('keeps the fields that older programs read, at the top', () => {
    expect(sealedJson()).toMatchObject({
      timestamp: '2025-11-04T15:30:00.000Z',
      database: 'clinic',
      size: 1234,
      compressed: true,
      encrypted: true,
      retentionDays: 30,
      version: '2.0',
    });
  });

  it('reads the same in another layout and another order of members', () => {
    const {seal, ...rest} = sealedJson();
    expect(read(JSON.stringify({seal, ...Object.fromEntries(Object.entries(rest).reverse())}))).toEqual(
      read(sealedText),
    );
  });

  it('is broken by a change of any field to another value', () => {
    for (const path of places(sealedJson())) {
      const reading = read(changed(path, another));
      // A seal of another key is one that can't be checked.
      if (path.join() === 'seal,keyFingerprint') expect(reading).toMatchObject({is: 'document', seal: 'unchecked'});
      else expect([path, reading.is]).toEqual([path, 'invalid']);
    }
  });

  it('is broken by leaving out any field, and by one more', () => {
    for (const path of places(sealedJson()))
      expect([path, read(changed(path, () => undefined)).is]).toEqual([path, 'invalid']);
    expect(read(JSON.stringify({...sealedJson(), extra: 1}))).toMatchObject({
      is: 'invalid',
      reason: expect.stringMatching(/altered/),
    });
  });

  it('is broken by any other value anywhere', () => {
    const everywhere = places(sealedJson()).filter((path) => path[0] !== 'seal' && path.join() !== 'version');
    fc.assert(
      fc.property(fc.constantFrom(...everywhere), fc.jsonValue(), (path, value) => {
        const text = changed(path, () => value);
        fc.pre(JSON.stringify(JSON.parse(text)) !== JSON.stringify(sealedJson()));
        expect(read(text).is).toBe('invalid');
      }),
      {numRuns: 500},
    );
  });

  it('sealed with a key that is not at hand is read, and marked as unchecked', () => {
    for (const keys of [[], [otherKey]]) {
      expect(read(sealedText, sampleKey, keys)).toMatchObject({
        is: 'document',
        document: sampleManifest,
        seal: 'unchecked',
        sealedBy: sealingKey.fingerprint,
      });
    }
  });

  it('sealed with another key under the same name is refused', () => {
    expect(read(sealedText, sampleKey, [{...otherKey, fingerprint: sealingKey.fingerprint}])).toMatchObject({
      is: 'invalid',
      reason: expect.stringMatching(/its seal does not fit/),
    });
  });

  it('is not written when it could not be read again', () => {
    for (const wrong of [{size: -1}, {size: 1.5}, {keyFingerprint: 'x'}, {timestamp: 'yesterday'}, {objects: []}]) {
      expect(() => sealManifest({...sampleManifest, ...wrong}, sealingKey)).toThrow();
    }
  });
});

describe('what is no manifest of this backup', () => {
  it.each<[string, string, RegExp]>([
    ['not JSON', 'SELECT 1', /not JSON/],
    ['empty', '', /not JSON/],
    ['cut off', sealedText.slice(0, 500), /not JSON/],
    ['an array', '[]', /not a JSON object/],
    ['null', 'null', /not a JSON object/],
    ['a number', '2', /not a JSON object/],
    ['without a seal', JSON.stringify(sampleManifest), /not sealed/],
    ['with a seal that is none', JSON.stringify({...sampleManifest, seal: {algorithm: 'none'}}), /not sealed/],
    ['of a later version', sealManifest(sampleManifest, sealingKey).replace('"2.0"', '"3.0"'), /altered/],
  ])('is refused: %s', (_, text, reason) => {
    expect(read(text)).toMatchObject({is: 'invalid', reason: expect.stringMatching(reason)});
  });

  it('is refused when it belongs to another backup', () => {
    const other = sampleKey.replaceAll('2025', '2024');
    expect(read(sealedText, other)).toEqual({is: 'invalid', reason: `it belongs to another backup (${sampleKey})`});
  });

  it('is refused with two objects, or none, though the seal fits', () => {
    for (const objects of [[], [...sampleManifest.objects, ...sampleManifest.objects]]) {
      // Sealed by hand: the program itself would not write it.
      expect(() => sealManifest({...sampleManifest, objects}, sealingKey)).toThrow();
      expect(
        read(
          changed(['objects'], () => objects),
          sampleKey,
          [],
        ),
      ).toMatchObject({is: 'invalid', reason: expect.stringMatching(/^objects: /)});
    }
  });

  it('is the older form when it says so, with the database if that is named', () => {
    expect(read('{"version":"1.0","database":"clinic","size":3}')).toEqual({is: 'legacy', database: 'clinic'});
    expect(read('{"version":"1.0"}')).toEqual({is: 'legacy', database: undefined});
  });

  it('of any bytes gives a reading, and never throws', () => {
    fc.assert(
      fc.property(
        fc.oneof(
          fc.json(),
          fc.string(),
          fc.uint8Array().map((bytes) => Buffer.from(bytes).toString('latin1')),
        ),
        (text) => {
          expect(read(text).is).toBe('invalid');
        },
      ),
      {numRuns: 500},
    );
  });

  it('with bytes changed at random is refused, or means the same', () => {
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.nat({max: sealedText.length - 1}), fc.integer({min: 0, max: 255})), {
          minLength: 1,
          maxLength: 3,
        }),
        (changes) => {
          const bytes = Buffer.from(sealedText);
          for (const [at, value] of changes) bytes[at] = value;
          const reading = read(bytes);
          if (reading.is === 'document' && reading.seal === 'verified')
            expect(reading.document).toEqual(sampleManifest);
          else expect(['invalid', 'legacy', 'document']).toContain(reading.is);
        },
      ),
      {numRuns: 1000},
    );
  });
});
