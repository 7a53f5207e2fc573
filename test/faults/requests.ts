/** Names for the requests of S3, and the faults that each of them can meet. */
import type {Fault, ProxiedRequest} from '../support/proxy.ts';

/** What a request is for: `part 2`, `read the manifest`. */
export function purposeOf({method, url}: ProxiedRequest): string {
  const {pathname, searchParams: query} = new URL(url, 'http://host');
  const what = pathname.endsWith('.metadata.json') ? 'the manifest' : 'the object';
  if (method === 'POST') return query.has('uploads') ? 'create the multipart upload' : 'complete the upload';
  if (method === 'PUT') return query.has('partNumber') ? `part ${query.get('partNumber')}` : `write ${what}`;
  if (method === 'DELETE') return query.has('uploadId') ? 'abort the upload' : `delete ${what}`;
  if (method === 'HEAD') return `look at ${what}`;
  if (query.has('list-type')) return 'list objects';
  return query.has('uploads') ? 'list uploads' : `read ${what}`;
}

export interface RequestFault {
  name: string;
  fault: Fault;
  /** A second try is answered well, so the program has to get over it. */
  isTransient: boolean;
}

const answer = (status: number, code: string): RequestFault => ({
  name: `${status} ${code}`,
  fault: {answer: {status, code}},
  isTransient: status >= 500 || status === 429,
});
const broken = (name: string, fault: Fault): RequestFault => ({name, fault, isTransient: true});

/** The faults that make sense for a request of this purpose. */
export function faultsFor(purpose: string): RequestFault[] {
  const hasBody = /^(part|write|complete)/.test(purpose);
  const hasAnswer = !/^(look|delete|abort|part|write)/.test(purpose);
  const isRead = /^read the object/.test(purpose);
  return [
    answer(500, 'InternalError'),
    answer(503, 'SlowDown'),
    answer(429, 'TooManyRequests'),
    answer(403, 'AccessDenied'),
    broken('reset before the first byte', {resetAfterBytes: 0}),
    broken('done, and its answer lost', {cutAfterBytes: -1}),
    broken('delayed by 0.3 s', {delayMs: 300}),
    ...(hasBody ? [broken('reset after 100 bytes', {resetAfterBytes: 100})] : []),
    ...(/^part/.test(purpose) ? [broken('reset after 1 MB', {resetAfterBytes: 1_000_000})] : []),
    ...(/^part|^read the object/.test(purpose) ? [broken('throttled to 4 MB/s', {bytesPerSecond: 4_000_000})] : []),
    ...(hasAnswer ? [broken('answer cut after 50 bytes', {cutAfterBytes: 50})] : []),
    ...(isRead ? [broken('answer cut after 300,000 bytes', {cutAfterBytes: 300_000})] : []),
    ...(/^complete/.test(purpose) ? [answer(200, 'InternalError')] : []),
  ];
}

/** What is only slow is no failure, however often it happens. */
export function isOnlySlow({fault}: RequestFault): boolean {
  return 'delayMs' in fault || 'bytesPerSecond' in fault;
}
