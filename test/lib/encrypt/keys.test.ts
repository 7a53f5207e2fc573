import {createHash} from 'node:crypto';
import {inspect} from 'node:util';
import {describe, expect, it} from '@jest/globals';
import fc from 'fast-check';
import {allKeys, derivedKey, type EncryptionKey, encryptionKey, keyring} from '../../../src/lib/encrypt/keys.ts';
import {Secret} from '../../../src/lib/secret.ts';

const hexKey = fc.string({unit: fc.constantFrom(...'0123456789abcdef'), minLength: 64, maxLength: 64});

describe('a key', () => {
  it('is told by the first 16 hex digits of its SHA-256, in whatever case it is written', () => {
    expect(encryptionKey(new Secret('00'.repeat(32))).fingerprint).toBe('66687aadf862bd77');
    fc.assert(
      fc.property(hexKey, (hex) => {
        const expected = createHash('sha256').update(Buffer.from(hex, 'hex')).digest('hex').slice(0, 16);
        expect(encryptionKey(new Secret(hex)).fingerprint).toBe(expected);
        expect(encryptionKey(new Secret(hex.toUpperCase())).fingerprint).toBe(expected);
      }),
    );
  });

  it('is wiped after every use, however that ends, and is there for the next one', () => {
    const key = encryptionKey(new Secret('ab'.repeat(32)));
    const held: Buffer[] = [];
    const work = (bytes: Buffer) => {
      held.push(bytes);
      return bytes.toString('hex');
    };
    expect(key.use(work)).toBe('ab'.repeat(32));
    expect(() =>
      key.use((bytes) => {
        throw new Error(work(bytes));
      }),
    ).toThrow('ab'.repeat(32));
    expect(held).toEqual([Buffer.alloc(32), Buffer.alloc(32)]);
  });

  it('is not shown when it is printed', () => {
    fc.assert(
      fc.property(hexKey, (hex) => {
        const shown = inspect(keyring(new Secret(hex), [new Secret(hex)]), {depth: 9, showHidden: true});
        expect(shown).not.toContain(hex);
        expect(JSON.stringify(keyring(new Secret(hex)))).not.toContain(hex);
      }),
    );
  });
});

describe('a key derived for a purpose', () => {
  const key = encryptionKey(new Secret('0b'.repeat(32)));

  it('has 32 bytes, is always the same, and another for every purpose and key', () => {
    const derived = (from: EncryptionKey, purpose: string) => derivedKey(from, purpose).export();
    expect(derived(key, 'a')).toHaveLength(32);
    expect(derived(key, 'a')).toEqual(derived(key, 'a'));
    expect(derived(key, 'a')).not.toEqual(derived(key, 'b'));
    expect(derived(encryptionKey(new Secret('0c'.repeat(32))), 'a')).not.toEqual(derived(key, 'a'));
    expect(derived(key, '')).not.toEqual(key.use(Buffer.from));
  });
});

describe('a keyring', () => {
  it('lists the current key first', () => {
    const keys = keyring(new Secret('01'.repeat(32)), [new Secret('02'.repeat(32)), new Secret('03'.repeat(32))]);
    expect(allKeys(keys).map((key) => key.use(([first]) => first))).toEqual([1, 2, 3]);
    expect(allKeys(keyring(new Secret('01'.repeat(32))))).toHaveLength(1);
  });
});
