import {describe, expect, it} from '@jest/globals';
import fc from 'fast-check';
import {FrameCheck} from '../../../src/lib/encrypt/frame-check.ts';
import {encryptionKey} from '../../../src/lib/encrypt/keys.ts';
import {longestHeader, magic, parseHeader} from '../../../src/lib/encrypt/message-header.ts';
import {frameBytes, open, type SealContext, seal} from '../../../src/lib/encrypt/seal.ts';
import {BackupError} from '../../../src/lib/errors.ts';
import {Secret} from '../../../src/lib/secret.ts';
import {bytewise, cut, cutPlaces, feed, noise, type Outcome, tryFeed} from '../feed.ts';

const key = encryptionKey(new Secret('a1'.repeat(32)));
const otherKey = encryptionKey(new Secret('b2'.repeat(32)));
const context: SealContext = {
  objectKey: 'database-backups/2025-11-04T15-30-00-000Z/backup-2025-11-04T15-30-00-000Z.sql.gz.encrypted',
  compression: 'gzip',
  content: 'postgresql-dump',
};

const sealed = (plain: Buffer, with_ = context) => feed(plain.length > 0 ? [plain] : [], seal(key, with_));
const tryOpen = (chunks: Iterable<Buffer>, keys = [key], expected = context) => tryFeed(chunks, open(keys, expected));

/** An opening that failed in our words, and released nothing that was not sealed there. */
function expectRefused({released, error}: Outcome, plain: Buffer, code: unknown = 'DECRYPTION_FAILED'): void {
  expect(error).toBeInstanceOf(BackupError);
  expect(error).toMatchObject({code, exitCode: 5, message: 'Decryption failed'});
  expect(plain.subarray(0, released.length).equals(released)).toBe(true);
}

const flipped = (bytes: Buffer, at: number, bit = 0) => {
  const altered = Buffer.from(bytes);
  altered[at] = (altered[at] ?? 0) ^ (1 << bit);
  return altered;
};

function headerOf(bytes: Buffer) {
  const reading = parseHeader(bytes);
  if (reading.is !== 'header') throw new Error(`no header: ${reading.is}`);
  return reading.header;
}

describe('sealing and opening', () => {
  it.each([0, 1, 15, 16, frameBytes - 1, frameBytes, frameBytes + 1, 2 * frameBytes, 2 * frameBytes + 1])(
    'brings back %i bytes',
    async (length) => {
      const plain = noise(length);
      const object = await sealed(plain);
      expect((await feed([object], open([key], context))).equals(plain)).toBe(true);
      const chunks = cut(
        object,
        Array.from({length: 40}, (_, index) => index * 65_537),
      );
      expect((await feed(chunks, open([key], context))).equals(plain)).toBe(true);
    },
  );

  it('brings back any bytes, cut in any way on both sides', async () => {
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({maxLength: 2000}), cutPlaces, cutPlaces, async (values, places, sealedPlaces) => {
        const plain = Buffer.from(values);
        const object = await feed(cut(plain, places), seal(key, context));
        expect((await feed(cut(object, sealedPlaces), open([key], context))).equals(plain)).toBe(true);
      }),
      {numRuns: 60},
    );
  });

  it('brings back what comes byte by byte, and in cuts across a frame boundary', async () => {
    const small = await sealed(Buffer.from('SELECT 1;'));
    expect((await feed(bytewise(small), open([key], context))).toString()).toBe('SELECT 1;');
    const plain = noise(frameBytes + 5);
    const object = await sealed(plain);
    const border = headerOf(object).length + 4 + 12 + frameBytes + 16;
    const places = Array.from({length: 80}, (_, index) => border - 40 + index);
    expect((await feed(cut(object, places), open([key], context))).equals(plain)).toBe(true);
  });

  it('gives other bytes each time, which hold nothing of the plaintext', async () => {
    const plain = Buffer.from('Ann Example, born 1970-01-01. '.repeat(50));
    const one = await sealed(plain);
    const other = await sealed(plain);
    expect(one.equals(other)).toBe(false);
    expect(one.includes('Ann Example')).toBe(false);
    expect(one.subarray(0, 3)).toEqual(magic);
  });

  it('opens with a previous key', async () => {
    const object = await sealed(Buffer.from('x'));
    expect((await feed([object], open([otherKey, key], context))).toString()).toBe('x');
  });
});

describe('another key', () => {
  it('is refused before anything is released, and both fingerprints are named', async () => {
    const plain = noise(5000);
    const outcome = await tryOpen([await sealed(plain)], [otherKey]);
    expectRefused(outcome, plain, 'WRONG_KEY');
    expect(outcome.released).toHaveLength(0);
    const {reason} = outcome.error as BackupError;
    expect(reason).toContain(`encrypted with key ${key.fingerprint}, you have ${otherKey.fingerprint}`);
    expect(reason).not.toContain('a1a1a1a1');
  });

  it('that pretends to be the right one opens nothing', async () => {
    const impostor = {fingerprint: key.fingerprint, use: otherKey.use};
    const outcome = await tryOpen([await sealed(Buffer.from('x'))], [impostor]);
    expectRefused(outcome, Buffer.from('x'));
    expect(outcome.released).toHaveLength(0);
  });
});

describe('an object that was put in place of another is refused', () => {
  it.each<[string, SealContext, RegExp]>([
    [
      'renamed',
      {...context, objectKey: 'database-backups/other'},
      /it was written as .*15-30-00.* and has been renamed/,
    ],
    ['of another compression', {...context, compression: 'zstd'}, /its compression is "gzip", not "zstd"/],
    ['of other content', {...context, content: 'file'}, /its content is "postgresql-dump", not "file"/],
  ])('%s', async (_, expected, reason) => {
    const outcome = await tryOpen([await sealed(Buffer.from('x'))], [key], expected);
    expectRefused(outcome, Buffer.from('x'));
    expect(outcome.released).toHaveLength(0);
    expect(outcome.error).toMatchObject({reason: expect.stringMatching(reason)});
  });
});

describe('a damaged object', () => {
  const small = Buffer.from('SELECT 1;\n'.repeat(10));
  const twoFrames = noise(2 * frameBytes + 100);
  const frameSize = 4 + 12 + frameBytes + 16;

  it('with any bit of its header flipped is refused and releases nothing', async () => {
    const object = await sealed(small);
    const {length} = headerOf(object);
    for (let at = 0; at < length; at += 1) {
      const {released, error} = await tryOpen([flipped(object, at, at % 8)]);
      expect([at, error instanceof BackupError && error.exitCode]).toEqual([at, 5]);
      expect([at, released.length]).toEqual([at, 0]);
    }
  });

  it('with any bit of a small body flipped is refused and releases nothing', async () => {
    const object = await sealed(small);
    for (let at = headerOf(object).length; at < object.length; at += 1) {
      const {released, error} = await tryOpen([flipped(object, at, at % 8)]);
      expect([at, error instanceof BackupError && error.exitCode]).toEqual([at, 5]);
      expect([at, released.length]).toEqual([at, 0]);
    }
  });

  it('cut off in its header, or anywhere in a small body, is refused', async () => {
    const object = await sealed(small);
    for (let length = 0; length < object.length; length += 1) {
      const {released, error} = await tryOpen([object.subarray(0, length)]);
      expect([length, error instanceof BackupError && error.reason]).toEqual([
        length,
        expect.stringMatching(/: it is cut off /),
      ]);
      expect([length, released.length]).toEqual([length, 0]);
    }
  });

  it('cut off near a frame boundary is refused, and what was released is the beginning of the plaintext', async () => {
    const object = await sealed(twoFrames);
    const start = headerOf(object).length;
    const places = [start, start + frameSize, start + 2 * frameSize].flatMap((border) =>
      [-17, -16, -1, 0, 1, 3, 4, 5, 8, 16, 20, 24].map((by) => border + by),
    );
    for (const length of [...places, object.length - 17, object.length - 16, object.length - 1]) {
      const outcome = await tryOpen(cut(object.subarray(0, length), [300_000, 1_200_000]));
      expectRefused(outcome, twoFrames);
      expect(outcome.released.length % frameBytes).toBe(0);
    }
  });

  it('with a bit flipped in any part of any frame is refused, and no byte of that frame is released', async () => {
    const object = await sealed(twoFrames);
    const start = headerOf(object).length;
    for (const frame of [0, 1, 2]) {
      const at = start + frame * frameSize;
      const frameEnd = frame === 2 ? object.length : at + frameSize;
      for (const place of [
        at,
        at + 3,
        at + 4,
        at + 15,
        at + 16,
        at + 24,
        at + 50,
        frameEnd - 17,
        frameEnd - 16,
        frameEnd - 1,
      ]) {
        const outcome = await tryOpen(cut(flipped(object, place, 2), [700_000, 1_500_000]));
        expectRefused(outcome, twoFrames);
        expect(outcome.released.length).toBeLessThanOrEqual(frame * frameBytes);
      }
    }
  });

  it('with frames swapped, repeated or left out is refused', async () => {
    const object = await sealed(twoFrames);
    const start = headerOf(object).length;
    const head = object.subarray(0, start);
    const [first, second] = [0, 1].map((frame) =>
      object.subarray(start + frame * frameSize, start + (frame + 1) * frameSize),
    );
    const last = object.subarray(start + 2 * frameSize);
    if (!first || !second) throw new Error('no frames');
    for (const frames of [
      [second, first, last],
      [first, first, second, last],
      [second, last],
      [first, last],
      [last],
      [first, second],
      [first, last, second],
    ]) {
      expectRefused(await tryOpen([head, ...frames]), twoFrames);
    }
  });

  it('with frames of another object is refused', async () => {
    const object = await sealed(twoFrames);
    const other = await sealed(twoFrames);
    const start = headerOf(object).length;
    expect(headerOf(other).length).toBe(start);
    const outcome = await tryOpen([object.subarray(0, start + frameSize), other.subarray(start + frameSize)]);
    expectRefused(outcome, twoFrames);
    expect(outcome.released.length).toBeLessThanOrEqual(frameBytes);
  });

  it.each([1, 16, 3000])('with %i bytes appended is refused', async (count) => {
    for (const plain of [Buffer.alloc(0), small]) {
      const object = await sealed(plain);
      for (const chunks of [[Buffer.concat([object, noise(count)])], [object, noise(count)]]) {
        const outcome = await tryOpen(chunks);
        expectRefused(outcome, plain);
        expect(outcome.error).toMatchObject({reason: expect.stringMatching(/something was appended/)});
      }
    }
  });

  it('that is two objects one after the other is refused', async () => {
    const object = await sealed(small);
    expectRefused(await tryOpen([object, object]), Buffer.concat([small, small]));
  });

  it('that is no object at all is refused', async () => {
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({maxLength: 500}), fc.boolean(), cutPlaces, async (values, withMagic, places) => {
        const bytes = Buffer.concat([withMagic ? magic : Buffer.alloc(0), values]);
        const outcome = await tryOpen(cut(bytes, places));
        expectRefused(outcome, Buffer.alloc(0));
      }),
      {numRuns: 200},
    );
  });

  it('changed anywhere at random is refused, or opens to what was sealed', async () => {
    const object = await sealed(small);
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.tuple(fc.nat({max: object.length - 1}), fc.integer({min: 0, max: 255})), {
          minLength: 1,
          maxLength: 5,
        }),
        cutPlaces,
        async (changes, places) => {
          const altered = Buffer.from(object);
          for (const [at, value] of changes) altered[at] = value;
          const outcome = await tryOpen(cut(altered, places));
          if (altered.equals(object)) expect(outcome.released.equals(small)).toBe(true);
          // A changed key name in the header makes it an object of another key.
          else expectRefused(outcome, small, expect.stringMatching(/^(DECRYPTION_FAILED|WRONG_KEY)$/));
        },
      ),
      {numRuns: 200},
    );
  });
});

describe('the header of a sealed object', () => {
  it('is read without a key: context, key and where the frames begin', async () => {
    const object = await sealed(Buffer.from('x'));
    const header = headerOf(object);
    expect(header.context).toMatchObject({
      format: '2',
      'object-key': context.objectKey,
      compression: 'gzip',
      content: 'postgresql-dump',
    });
    expect(header.wrappedKeys).toHaveLength(1);
    expect(header.wrappedKeys).toMatchObject([{namespace: 'loma-backup', name: key.fingerprint}]);
    expect(header.frameLength).toBe(frameBytes);
    expect(object.length - header.length).toBe(4 + 4 + 12 + 4 + 1 + 16);
  });

  it('needs more bytes until it is whole, and no more after that', async () => {
    const object = await sealed(Buffer.from('x'));
    const header = headerOf(object);
    for (let length = 0; length < header.length; length += 1) {
      expect(parseHeader(object.subarray(0, length))).toEqual({is: 'short'});
    }
    expect(parseHeader(object.subarray(0, header.length))).toEqual({is: 'header', header});
  });

  it('is foreign when it begins as something else', () => {
    for (const bytes of [
      Buffer.from([1]),
      Buffer.from([2, 4, 0x79]),
      Buffer.from('SELECT'),
      Buffer.from([0x1f, 0x8b]),
    ]) {
      expect(parseHeader(bytes)).toMatchObject({is: 'foreign'});
    }
  });

  it('is foreign when it claims to be endless', () => {
    const bytes = Buffer.concat([
      magic,
      Buffer.alloc(32),
      Buffer.from([0, 0, 0xff, 0xff]),
      Buffer.alloc(longestHeader, 0xff),
    ]);
    expect(parseHeader(bytes)).toEqual({is: 'foreign', reason: 'its header is too long'});
  });

  it('of any bytes gives a reading, and never throws', async () => {
    const object = await sealed(Buffer.from('x'));
    const {length} = headerOf(object);
    const mutated = fc
      .array(fc.tuple(fc.nat({max: length - 1}), fc.integer({min: 0, max: 255})), {maxLength: 8})
      .map((changes) => {
        const bytes = Buffer.from(object);
        for (const [at, value] of changes) bytes[at] = value;
        return bytes;
      });
    const garbage = fc.uint8Array({maxLength: 400}).map((values) => Buffer.concat([magic, values]));
    fc.assert(
      fc.property(fc.oneof(mutated, garbage), fc.nat({max: 500}), (bytes, end) => {
        const reading = parseHeader(bytes.subarray(0, Math.max(end, 3)));
        expect(['header', 'short', 'foreign']).toContain(reading.is);
        if (reading.is === 'header') expect(reading.header.length).toBeLessThanOrEqual(bytes.length);
      }),
      {numRuns: 5000},
    );
  });
});

describe('following the frames without a key', () => {
  const check = () => new FrameCheck('backup-x', () => undefined);

  it('comes to the end of a whole object, however it is cut', async () => {
    const object = await sealed(noise(frameBytes + 10));
    fc.assert(
      fc.property(cutPlaces, (places) => {
        const frames = check();
        for (const chunk of cut(object, places)) frames.write(chunk);
        expect(() => frames.end()).not.toThrow();
      }),
      {numRuns: 30},
    );
  });

  it('says where an object was cut off', async () => {
    const object = await sealed(noise(2 * frameBytes));
    const ends = (length: number) => {
      const frames = check();
      frames.write(object.subarray(0, length));
      frames.end();
    };
    const reason = (words: string) => expect.objectContaining({reason: `backup-x: it is cut off ${words}`});
    expect(() => ends(10)).toThrow(reason('in its header'));
    expect(() => ends(headerOf(object).length + 100)).toThrow(reason('after 0 whole frames of 1 MiB'));
    expect(() => ends(headerOf(object).length + frameBytes + 100)).toThrow(reason('after 1 whole frames of 1 MiB'));
  });

  it('passes the header on once, and an error from there comes through', async () => {
    const object = await sealed(Buffer.from('x'));
    let calls = 0;
    const frames = new FrameCheck('x', () => {
      calls += 1;
    });
    for (const chunk of bytewise(object)) frames.write(chunk);
    expect(calls).toBe(1);
    const refusing = new FrameCheck('x', () => {
      throw new BackupError('no', {code: 'WRONG_KEY', kind: 'integrity'});
    });
    expect(() => refusing.write(object)).toThrow('no');
  });

  it('refuses a last frame that claims to be longer than a frame', async () => {
    const object = await sealed(Buffer.from('x'));
    const altered = Buffer.from(object);
    altered.writeUInt32BE(frameBytes + 1, headerOf(object).length + 4 + 4 + 12);
    expect(() => check().write(altered)).toThrow(expect.objectContaining({reason: expect.stringMatching(/too long/)}));
  });
});
