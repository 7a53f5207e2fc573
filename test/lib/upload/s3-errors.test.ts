import {describe, expect, it} from '@jest/globals';
import {BackupError} from '../../../src/lib/errors.ts';
import {
  isNotFound,
  isNotImplemented,
  isPreconditionFailed,
  isTransient,
  storageError,
} from '../../../src/lib/upload/s3-errors.ts';

/** An error as the AWS SDK makes it. */
const answer = (name: string, status: number | undefined, message = 'said the server') =>
  Object.assign(new Error(message), {name, $metadata: {httpStatusCode: status}});
const network = (code: string) =>
  Object.assign(new Error(`connect ${code} 10.0.0.1:443`), {code, $metadata: {attempts: 3}});

describe('what an answer means', () => {
  it.each([
    ['NoSuchKey', 404, {notFound: true, transient: false}],
    ['NotFound', 404, {notFound: true, transient: false}],
    ['UnknownError', 404, {notFound: true, transient: false}],
    ['NoSuchBucket', 404, {notFound: false, transient: false}],
    ['PreconditionFailed', 412, {exists: true, transient: false}],
    ['ConditionalRequestConflict', 409, {exists: true, transient: false}],
    ['Unknown', 412, {exists: true}],
    ['NotImplemented', 501, {notImplemented: true}],
    ['Unknown', 501, {notImplemented: true}],
    ['AccessDenied', 403, {transient: false}],
    ['SignatureDoesNotMatch', 403, {transient: false}],
    ['InvalidPart', 400, {transient: false}],
    ['InternalError', 500, {transient: true}],
    ['ServiceUnavailable', 503, {transient: true}],
    ['SlowDown', 429, {transient: true}],
    ['RequestTimeout', 408, {transient: true}],
    // A body that broke off after the head had come.
    ['Error', 200, {transient: true}],
    ['Error', 206, {transient: true}],
    ['TimeoutError', undefined, {transient: true}],
  ])('%s, %s: %j', (name, status, meaning) => {
    const error = answer(name, status);
    const expected = {
      notFound: false,
      exists: false,
      notImplemented: false,
      transient: expect.any(Boolean),
      ...meaning,
    };
    expect({
      notFound: isNotFound(error),
      exists: isPreconditionFailed(error),
      notImplemented: isNotImplemented(error),
      transient: isTransient(error),
    }).toEqual(expected);
  });

  it('is no answer when the network failed: another try may help', () => {
    for (const error of [network('ECONNRESET'), network('ENOTFOUND'), new Error('socket hang up')]) {
      expect([isTransient(error), isNotFound(error), isPreconditionFailed(error)]).toEqual([true, false, false]);
    }
  });
});

describe('the error for a request that failed for good', () => {
  it.each([
    [answer('NoSuchBucket', 404), 'STORAGE_FAILED', /Create the bucket.*CLOUDFLARE_R2_BUCKET_BACKUPS/],
    [answer('SignatureDoesNotMatch', 403), 'STORAGE_DENIED', /CLOUDFLARE_R2_SECRET_ACCESS_KEY/],
    [answer('InvalidAccessKeyId', 403), 'STORAGE_DENIED', /CLOUDFLARE_R2_ACCESS_KEY_ID/],
    [answer('Unauthorized', 401), 'STORAGE_DENIED', /CLOUDFLARE_R2_ACCESS_KEY_ID/],
    [answer('Whatever', 401), 'STORAGE_DENIED', /same R2 token/],
    [answer('RequestTimeTooSkewed', 403), 'STORAGE_DENIED', /clock/],
    [answer('AccessDenied', 403), 'STORAGE_DENIED', /Object Read & Write/],
    [answer('ObjectLockedByBucketPolicy', 403), 'OBJECT_LOCKED', /bucket lock rule/],
    [
      answer('AccessDenied', 403, 'Locked by a rule: the Lock lets it go in 3 days'),
      'OBJECT_LOCKED',
      /bucket lock rule/,
    ],
    [network('ENOTFOUND'), 'STORAGE_FAILED', /CLOUDFLARE_R2_ACCOUNT_ID/],
    [network('ECONNREFUSED'), 'STORAGE_FAILED', /CLOUDFLARE_R2_ENDPOINT/],
    [
      Object.assign(new Error('write EPROTO 40D35E:error:0A00010B:SSL routines::wrong version number'), {
        code: 'EPROTO',
      }),
      'STORAGE_FAILED',
      /does not speak TLS/,
    ],
    [answer('InternalError', 500), 'STORAGE_FAILED', /Try again/],
  ])('%s is %s', (cause, code, hint) => {
    const error = storageError('writing x', cause);
    expect(error).toBeInstanceOf(BackupError);
    expect(error).toMatchObject({
      message: 'Storage failed: writing x',
      code,
      exitCode: 4,
      cause,
      hint: expect.stringMatching(hint),
    });
    expect(error.reason).toContain(cause.message);
  });

  it("names the server's code once, beside its words", () => {
    expect(storageError('x', answer('SlowDown', 429, 'less, please')).reason).toBe('SlowDown: less, please');
    expect(storageError('x', answer('SlowDown', 429, 'SlowDown')).reason).toBe('SlowDown');
    expect(storageError('x', new Error('socket hang up')).reason).toBe('socket hang up');
  });

  it('is passed on when it is one of ours', () => {
    const ours = new BackupError('x', {code: 'OBJECT_EXISTS', kind: 'storage'});
    expect(storageError('writing', ours)).toBe(ours);
  });

  it('is made of anything that was thrown', () => {
    for (const thrown of ['text', null, undefined, 7]) expect(storageError('x', thrown).code).toBe('STORAGE_FAILED');
  });
});
