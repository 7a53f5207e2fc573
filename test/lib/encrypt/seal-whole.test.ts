import {randomBytes} from 'node:crypto';
import {expect, test} from '@jest/globals';
import {withUnwrappedDataKey} from '../../../src/lib/encrypt/data-key.ts';
import {encryptionKey} from '../../../src/lib/encrypt/keys.ts';
import {parseHeader} from '../../../src/lib/encrypt/message-header.ts';
import {frameBytes, open, seal} from '../../../src/lib/encrypt/seal.ts';
import {sealWhole} from '../../../src/lib/encrypt/seal-whole.ts';
import {Secret} from '../../../src/lib/secret.ts';
import {feed, noise} from '../feed.ts';

const key = encryptionKey(new Secret(randomBytes(32).toString('hex')));
const context = {
  objectKey: 'migrated/uploads/山田/"x-ray" é\n.png.encrypted',
  compression: 'none',
  content: 'file',
};
const sizes = [0, 1, 50_000, frameBytes - 1, frameBytes, frameBytes + 1, 2 * frameBytes, 3 * frameBytes + 17];

test.each(sizes)('%i bytes: with the same random numbers, the same bytes as the library', async (size) => {
  const content = noise(size);
  const expected = await feed(size > 0 ? [content] : [], seal(key, context));
  const reading = parseHeader(expected);
  if (reading.is !== 'header') throw new Error(reading.is);
  const {messageId, wrappedKeys} = reading.header;
  const wrapped = {header: reading.header, keys: [key], more: [], what: 'test'};
  const dataKey = await withUnwrappedDataKey(wrapped, (bytes) => Buffer.from(bytes));
  const wrappingIv = wrappedKeys[0]?.info.subarray(-12) ?? Buffer.alloc(0);
  expect(sealWhole(content, key, context, {messageId, dataKey, wrappingIv}).equals(expected)).toBe(true);
  expect(dataKey).toEqual(Buffer.alloc(32));
});

test.each([0, 50_000, frameBytes + 1])(
  '%i bytes: the library opens it, and no two messages are alike',
  async (size) => {
    const content = noise(size);
    const [one, other] = [sealWhole(content, key, context), sealWhole(content, key, context)];
    expect((await feed([one], open([key], context))).equals(content)).toBe(true);
    const differing = one.filter((byte, index) => byte !== other[index]).length;
    // All that is random or follows from it: id, wrapped key, commitment, tags, ciphertext.
    expect(differing).toBeGreaterThan((size + 150) * 0.95);
  },
);
