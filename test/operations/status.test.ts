import {mkdtemp, readdir, readFile, rm} from 'node:fs/promises';
import {createServer} from 'node:http';
import type {AddressInfo} from 'node:net';
import os from 'node:os';
import path from 'node:path';
import {afterEach, beforeEach, describe, expect, it} from '@jest/globals';
import {backupKey, manifestKey} from '../../src/lib/catalog/key-names.ts';
import {ping} from '../../src/lib/heartbeat.ts';
import {status} from '../../src/lib/operations/status.ts';
import {Secret} from '../../src/lib/secret.ts';
import {prometheusText, writePrometheusFile} from '../../src/ui/prometheus.ts';
import {keySettings, newKey, runtime, type TestStore, testStore} from '../support/settings.ts';

const policy = {maxAgeMs: 26 * 3_600_000, maxUnverifiedMs: 35 * 86_400_000, retentionDays: 30};
const key = newKey();
let store: TestStore;
let folder: string;

beforeEach(async () => {
  folder = await mkdtemp(path.join(os.tmpdir(), 'loma-test-status-'));
});
afterEach(async () => {
  await rm(folder, {recursive: true, force: true});
  await store?.dispose();
});

const look = (now = new Date()) =>
  status({store: store.settings, optionalKeys: keySettings(key), policy, formatAge: String}, runtime({now: () => now}));

describe.each(['directory', 's3'] as const)('the status of a bucket (%s)', (kind) => {
  it('is unhealthy when it is empty, and reads the unfinished uploads', async () => {
    store = await testStore(kind);
    const result = await look();
    expect(result).toMatchObject({isHealthy: false, backups: 0, newestKey: undefined});
    expect(result.findings.find(({id}) => id === 'incomplete')?.isGood).toBe(true);
  });

  it('tells a damaged backup from a complete one', async () => {
    store = await testStore(kind);
    const name = backupKey(new Date(), 'gzip');
    await store.store.create(name, Buffer.from('x'));
    await store.store.create(manifestKey(name), Buffer.from('not JSON'));
    const result = await look();
    expect(result.newestKey).toBeUndefined();
    expect(result.findings.find(({id}) => id === 'incomplete')).toMatchObject({isGood: false, value: 1});
  });
});

describe('the text file for Prometheus', () => {
  it('holds each figure with its help and type, and is written whole or not at all', async () => {
    store = await testStore('directory');
    const file = path.join(folder, 'loma.prom');
    await writePrometheusFile(file, prometheusText(await look(new Date('2026-03-31T12:00:00Z'))));
    const text = await readFile(file, 'utf8');
    expect(text).toContain('# TYPE loma_backup_healthy gauge\nloma_backup_healthy 0\n');
    expect(text).toContain('loma_backup_check{check="newest"} 0\n');
    expect(text).toContain('loma_backup_status_timestamp_seconds 1774958400\n');
    // Every line is a comment or a sample: name, labels, number.
    for (const line of text.trimEnd().split('\n')) {
      expect(line).toMatch(/^(# (HELP|TYPE) [a-z_]+ .+|[a-z_]+(\{check="[a-z]+"\})? -?\d+(\.\d+)?)$/);
    }
    expect(await readdir(folder)).toEqual(['loma.prom']);
    await expect(writePrometheusFile(path.join(folder, 'no', 'loma.prom'), text)).rejects.toMatchObject({
      code: 'OUTPUT_FAILED',
    });
    expect(await readdir(folder)).toEqual(['loma.prom']);
  });
});

describe('a heartbeat', () => {
  async function monitor(answer: number): Promise<{url: string; calls: string[]; close(): Promise<void>}> {
    const calls: string[] = [];
    const server = createServer(async (request, response) => {
      const body = (await request.toArray()).join('');
      calls.push(`${request.method} ${request.url} ${body}`);
      response.writeHead(answer).end();
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const {port} = server.address() as AddressInfo;
    const close = () => new Promise<void>((resolve) => void server.close(() => resolve()));
    return {url: `http://127.0.0.1:${port}/uuid`, calls, close};
  }

  it('goes to the URL on success and to URL/fail on failure, with the summary', async () => {
    const {url, calls, close} = await monitor(200);
    expect(await ping(new Secret(url), 'success', 'all well')).toBeUndefined();
    expect(await ping(new Secret(`${url}/?x=1`), 'failure', 'not well')).toBeUndefined();
    expect(calls).toEqual(['POST /uuid all well', 'POST /uuid/fail?x=1 not well']);
    await close();
  });

  it('says why it could not be delivered, without the URL, and never throws', async () => {
    const {url, close} = await monitor(500);
    expect(await ping(new Secret(url), 'success', '')).toBe('the monitor answered 500');
    await close();
    const problem = await ping(new Secret(url), 'success', '');
    expect(problem).toContain('cannot be reached');
    expect(problem).not.toContain('uuid');
  });
});
