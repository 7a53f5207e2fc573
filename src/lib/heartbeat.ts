import type {Secret} from './secret.ts';

const timeoutMs = 10_000;

/**
 * Reports a success or a failure to a heartbeat monitor by the convention of healthchecks.io: POST to the URL, or to
 * URL/fail, with a summary as the body (the first 100 kB are kept there). The caller masks secrets in it.
 * @returns why it could not be reported; undefined when it was. Never throws: an unreachable monitor fails no backup.
 */
export async function ping(url: Secret, outcome: 'success' | 'failure', body: string): Promise<string | undefined> {
  const address = new URL(url.reveal());
  if (outcome === 'failure') address.pathname = `${address.pathname.replace(/\/$/, '')}/fail`;
  try {
    const answer = await fetch(address, {
      method: 'POST',
      body: body.slice(0, 50_000),
      redirect: 'error',
      signal: AbortSignal.timeout(timeoutMs),
    });
    return answer.ok ? undefined : `the monitor answered ${answer.status}`;
  } catch (error) {
    const cause = (error as {cause?: {code?: string; message?: string}}).cause;
    return `the monitor cannot be reached: ${cause?.code ?? cause?.message ?? (error as Error).message}`;
  }
}
