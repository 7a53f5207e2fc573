import {describe, expect, it} from '@jest/globals';
import {
  newDataKey,
  type WrappedDataKey,
  withNewDataKey,
  withUnwrappedDataKey,
  wrapDataKey,
} from '../../../src/lib/encrypt/data-key.ts';
import {encryptionKey} from '../../../src/lib/encrypt/keys.ts';
import {parseHeader} from '../../../src/lib/encrypt/message-header.ts';
import {open, type SealContext, seal} from '../../../src/lib/encrypt/seal.ts';
import {Secret} from '../../../src/lib/secret.ts';
import {feed, noise, tryFeed} from '../feed.ts';

const key = encryptionKey(new Secret('a1'.repeat(32)));
const newKey = encryptionKey(new Secret('b2'.repeat(32)));
const context: SealContext = {objectKey: 'database-backups/x', compression: 'gzip', content: 'postgresql-dump'};
const plain = noise(3000);
const dataKey = newDataKey();
const sealed = () => feed([plain], seal(key, context, {dataKey}));

function headerOf(object: Buffer) {
  const reading = parseHeader(object);
  if (reading.is !== 'header') throw new Error(reading.is);
  return reading.header;
}

/** A copy: what the work is given is wiped. */
const unwrapped = (wrapped: Omit<WrappedDataKey, 'what'>) =>
  withUnwrappedDataKey({...wrapped, what: 'it'}, (bytes) => Buffer.from(bytes));

describe('the data key of an object', () => {
  it('comes out of the header alone, and wrapped under another key opens the object', async () => {
    const object = await sealed();
    const header = headerOf(object);
    expect(await unwrapped({header, keys: [key], more: []})).toEqual(dataKey);
    const more = await wrapDataKey(dataKey, header, {key: newKey});
    expect(more).toMatchObject([{namespace: 'loma-backup', name: newKey.fingerprint}]);
    expect(await unwrapped({header, keys: [newKey], more})).toEqual(dataKey);
    expect((await feed([object], open([newKey], context, more))).equals(plain)).toBe(true);
    // The old key opens it by the header, whatever is kept beside it.
    expect((await feed([object], open([key, newKey], context, more))).equals(plain)).toBe(true);
  });

  it('that is another one is refused, when it is unwrapped and when the object is opened', async () => {
    const object = await sealed();
    const header = headerOf(object);
    const more = await wrapDataKey(newDataKey(), header, {key: newKey});
    await expect(unwrapped({header, keys: [newKey], more})).rejects.toMatchObject({code: 'DECRYPTION_FAILED'});
    const {released, error} = await tryFeed([object], open([newKey], context, more));
    expect(error).toMatchObject({code: 'DECRYPTION_FAILED'});
    expect(released).toHaveLength(0);
  });

  it.each(['well', 'badly'])('is wiped when the work with it has ended %s', async (how) => {
    const header = headerOf(await sealed());
    const held: Buffer[] = [];
    const work = async (bytes: Buffer) => {
      held.push(bytes);
      expect(bytes.equals(Buffer.alloc(32))).toBe(false);
      if (how === 'badly') throw new Error('badly');
    };
    const ended = [withNewDataKey(work), withUnwrappedDataKey({header, keys: [key], more: [], what: 'it'}, work)];
    const outcomes = await Promise.allSettled(ended);
    expect(outcomes.map(({status}) => status)).toEqual(Array(2).fill(how === 'well' ? 'fulfilled' : 'rejected'));
    expect(held).toEqual([Buffer.alloc(32), Buffer.alloc(32)]);
  });

  it('seals nothing once it is wiped', async () => {
    await expect(feed([plain], seal(key, context, {dataKey: Buffer.alloc(32)}))).rejects.toThrow('was wiped');
  });

  it('wrapped for an object of another name does not unwrap', async () => {
    const header = headerOf(await sealed());
    const other = {context: {...header.context, 'object-key': 'database-backups/y'}};
    const more = await wrapDataKey(dataKey, other, {key: newKey});
    await expect(unwrapped({header, keys: [newKey], more})).rejects.toMatchObject({code: 'DECRYPTION_FAILED'});
  });

  it('is not given out for a header with any bit flipped, also when it is known from elsewhere', async () => {
    const object = await sealed();
    const good = headerOf(object);
    const more = await wrapDataKey(dataKey, good, {key: newKey});
    for (let at = 0; at < good.length; at += 1) {
      const altered = Buffer.from(object);
      altered[at] = (altered[at] ?? 0) ^ (1 << (at % 8));
      const reading = parseHeader(altered);
      if (reading.is !== 'header') continue;
      const outcome = await unwrapped({header: reading.header, keys: [newKey], more}).catch(({code}) => code);
      expect([at, outcome]).toEqual([at, 'DECRYPTION_FAILED']);
    }
  });
});
