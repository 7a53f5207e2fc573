import {BackupError, codeOf, messageOf} from '../errors.ts';

interface Answer {
  name: string;
  status: number | undefined;
}

function answerOf(error: unknown): Answer {
  const facts = error as {name?: string; Code?: string; $metadata?: {httpStatusCode?: number}};
  return {name: facts?.name ?? facts?.Code ?? '', status: facts?.$metadata?.httpStatusCode};
}

export function isNotFound(error: unknown): boolean {
  const {name, status} = answerOf(error);
  return name === 'NoSuchKey' || name === 'NotFound' || (status === 404 && name !== 'NoSuchBucket');
}

export function isNoUpload(error: unknown): boolean {
  return answerOf(error).name === 'NoSuchUpload' || isNotFound(error);
}

export function isNoBucket(error: unknown): boolean {
  return answerOf(error).name === 'NoSuchBucket';
}

/** There is an object of that key already (`If-None-Match: *`), or it is another than before (`If-Match`). */
export function isPreconditionFailed(error: unknown): boolean {
  const {name, status} = answerOf(error);
  return name === 'PreconditionFailed' || status === 412 || name === 'ConditionalRequestConflict';
}

/** The store does not know conditional writes (OpenStack Swift). */
export function isNotImplemented(error: unknown): boolean {
  const {name, status} = answerOf(error);
  return name === 'NotImplemented' || status === 501;
}

/** Whether another try may help: no answer at all, or one that asks to come back later. */
export function isTransient(error: unknown): boolean {
  const {status} = answerOf(error);
  return status === undefined || status >= 500 || status === 429 || status === 408 || status === 200 || status === 206;
}

/** The error for a request that failed for good: what was being done, why, and what to do. */
export function storageError(doing: string, error: unknown): BackupError {
  if (error instanceof BackupError) return error;
  const {name, status} = answerOf(error);
  const text = messageOf(error);
  const reason = [name && name !== 'Error' && !text.includes(name) ? name : '', text].filter(Boolean).join(': ');
  const make = (code: BackupError['code'], hint: string) =>
    new BackupError(`Storage failed: ${doing}`, {code, kind: 'storage', reason, hint, cause: error});

  if (/Lock/.test(name) || /Lock/.test(text)) {
    return make('OBJECT_LOCKED', 'A bucket lock rule keeps this object: it can be deleted when the rule lets it go.');
  }
  if (name === 'NoSuchBucket') {
    return make(
      'STORAGE_FAILED',
      'Create the bucket, or set CLOUDFLARE_R2_BUCKET_BACKUPS and CLOUDFLARE_R2_BUCKET_FILES to the right names.',
    );
  }
  if (['SignatureDoesNotMatch', 'InvalidAccessKeyId', 'Unauthorized'].includes(name) || status === 401) {
    return make(
      'STORAGE_DENIED',
      'Are CLOUDFLARE_R2_ACCESS_KEY_ID and CLOUDFLARE_R2_SECRET_ACCESS_KEY from the same R2 token, and is it still valid?',
    );
  }
  if (name === 'AuthorizationHeaderMalformed' || /\bregion\b/i.test(text)) {
    return make(
      'STORAGE_DENIED',
      'The store wants requests signed for its own region: set CLOUDFLARE_R2_REGION to it.',
    );
  }
  if (name === 'RequestTimeTooSkewed') {
    return make('STORAGE_DENIED', "This machine's clock is wrong: set it, and try again.");
  }
  if (status === 403) {
    return make('STORAGE_DENIED', 'The token may not do this: it needs "Object Read & Write" on the bucket.');
  }
  if (['ENOTFOUND', 'ECONNREFUSED', 'EAI_AGAIN', 'EHOSTUNREACH', 'ENETUNREACH'].includes(codeOf(error) ?? '')) {
    return make(
      'STORAGE_FAILED',
      'Is CLOUDFLARE_R2_ACCOUNT_ID (or CLOUDFLARE_R2_ENDPOINT) right, and is this machine on the network?',
    );
  }
  if (codeOf(error) === 'EPROTO' && /wrong version number|packet length too long/.test(text)) {
    return make(
      'STORAGE_FAILED',
      'CLOUDFLARE_R2_ENDPOINT is https://, and what answers there does not speak TLS: is the port right, or should it be http://?',
    );
  }
  return make('STORAGE_FAILED', 'Try again; if it stays, look at the status page of the store.');
}
