import {generateKeySync} from 'node:crypto';
import {describe, expect, test} from '@jest/globals';
import {hiddenKeyOf, mayBeHidden, nameOf, objectKeyOf, reasonToRefuse} from '../../../src/lib/files/file-names.ts';
import {decodeMetadata, encodeMetadata, type FileFacts, type FileKeys} from '../../../src/lib/files/metadata.ts';

const newKey = () => generateKeySync('hmac', {length: 256});
const fileKeys = (fingerprint: string): FileKeys => ({
  fingerprint,
  digests: newKey(),
  names: newKey(),
  seal: newKey(),
  hidden: newKey(),
});
const keys = fileKeys('0123456789abcdef');
const other = fileKeys('fedcba9876543210');

const name = 'uploads/sub/J. Öçalan "X-ray"\n.png';
const key = objectKeyOf(name);
const facts = (changes: Partial<FileFacts> = {}): FileFacts => ({
  name,
  contentType: 'image/png',
  sizeBytes: 5_000_000_000,
  mtime: '1700000000.123456789',
  digest: 'ab'.repeat(32),
  keyFingerprint: keys.fingerprint,
  isHidden: false,
  ...changes,
});

describe.each([false, true])('metadata, with the name hidden: %s', (isHidden) => {
  const ownKey = isHidden ? hiddenKeyOf(name, keys.names) : key;
  const encoded = encodeMetadata(ownKey, facts({isHidden}), keys);

  test('come back as they were, with any of our keys', () => {
    const reading = decodeMetadata(ownKey, encoded, [other, keys]);
    expect(reading).toEqual({is: 'facts', facts: facts({isHidden}), keys});
  });

  test('are ASCII, in values that every store takes', () => {
    for (const [header, value] of Object.entries(encoded)) {
      expect(header).toMatch(/^[a-z][a-z0-9-]*$/);
      expect(value).toMatch(/^[ -~]{1,256}$/);
    }
  });

  test('are not believed with any value changed, left out, or exchanged', () => {
    for (const header of Object.keys(encoded).filter((each) => each !== 'loma-format')) {
      const value = encoded[header] ?? '';
      const last = value.at(-5) === '0' ? '1' : '0';
      const changed = {...encoded, [header]: `${value.slice(0, -5)}${last}${value.slice(-4)}`};
      expect(decodeMetadata(ownKey, changed, [keys])).toMatchObject({is: 'invalid'});
      const {[header]: _, ...without} = encoded;
      expect(decodeMetadata(ownKey, without, [keys])).toMatchObject({is: 'invalid'});
    }
    const another = isHidden ? hiddenKeyOf('uploads/other', keys.names) : objectKeyOf('uploads/other');
    expect(decodeMetadata(another, encoded, [keys])).toMatchObject({is: 'invalid'});
  });

  test('sealed with a key that is not at hand say so', () => {
    const reading = decodeMetadata(ownKey, encoded, [other]);
    expect(reading).toMatchObject({is: 'invalid', reason: expect.stringContaining(keys.fingerprint)});
  });
});

test('hidden metadata show neither name nor type nor time', () => {
  const text = JSON.stringify(encodeMetadata('migrated/uploads/x.encrypted', facts({isHidden: true}), keys));
  for (const secret of ['calan', 'image/png', '1700000000', '5000000000']) expect(text).not.toContain(secret);
});

test('an object without metadata of ours has none', () => {
  expect(decodeMetadata(key, {}, [keys])).toEqual({is: 'none'});
  expect(decodeMetadata(key, {mtime: '17'}, [keys])).toEqual({is: 'none'});
});

describe('names', () => {
  test.each([name, 'uploads/..x..', 'uploads/a.encrypted', 'uploads/.hidden', 'uploads/e\u0301', 'uploads/\u00e9'])(
    '%j is the name of its key, and a path below a directory',
    (each) => {
      expect(nameOf(objectKeyOf(each))).toBe(each);
      expect(reasonToRefuse(each)).toBeUndefined();
    },
  );

  test.each(['../x', 'a/../b', 'a/..', '/etc/passwd', 'a//b', 'a/', './a', 'a\0b', 'a/\ud800', ''])(
    '%j is refused',
    (each) => {
      expect(reasonToRefuse(each)).toBeTruthy();
    },
  );

  test.each(['migrated/x', 'other/x.encrypted', 'migrated/.encrypted', 'x'])('%j is the key of no file', (each) => {
    expect(nameOf(each)).toBeUndefined();
  });

  test('hidden in a key depend on all of the name and on the key', () => {
    const hidden = hiddenKeyOf(name, keys.names);
    expect(mayBeHidden(hidden)).toBe(true);
    expect(hidden).toMatch(/^migrated\/uploads\/[0-9a-f]{64}\.encrypted$/);
    expect(hiddenKeyOf(name, keys.names)).toBe(hidden);
    expect(hiddenKeyOf(name, other.names)).not.toBe(hidden);
    expect(hiddenKeyOf(`${name}x`, keys.names)).not.toBe(hidden);
  });
});
