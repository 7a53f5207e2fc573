/** How long `status` takes on many backups in a local S3 server: 1,000 manifests, each with as many tables as asked for. */
import {randomBytes} from 'node:crypto';
import pMap from 'p-map';
import {backupKey, manifestKey} from '../../src/lib/catalog/key-names.ts';
import {type Manifest, sealManifest} from '../../src/lib/catalog/manifest.ts';
import {keyring} from '../../src/lib/encrypt/keys.ts';
import {manifestSealingKey} from '../../src/lib/operations/catalog.ts';
import {status} from '../../src/lib/operations/status.ts';
import {Secret} from '../../src/lib/secret.ts';
import {openStores} from '../../src/lib/upload/open-store.ts';
import {createBucket, startObjectServer} from '../../test/support/object-server.ts';

const count = 1000;
const tables = 50;
const dayMs = 86_400_000;

function manifestOf(startedAt: Date, key: string, fingerprint: string, size: number): Manifest {
  const sha256 = 'a'.repeat(64);
  return {
    version: '2.0',
    timestamp: startedAt.toISOString(),
    database: 'clinic',
    size,
    compressed: true,
    encrypted: true,
    retentionDays: 30,
    compression: 'gzip',
    label: 'scheduled',
    hold: false,
    durationMs: 1000,
    dumpBytes: 10 * size,
    compressedBytes: size,
    objects: [{key, size, sha256, partSize: 8 << 20}],
    serverVersion: '15.14',
    encoding: 'UTF8',
    roles: [],
    pgDumpVersion: '15.14',
    toolVersion: '0.1.0',
    keyFingerprint: fingerprint,
    excludedTableData: [],
    contents: {
      tables: Array.from({length: tables}, (_, index) => ({
        table: `public.table_${index}`,
        columns: 'id, name, created_at',
        rows: 1000,
        bytes: 100_000,
        sha256,
      })),
      schema: {bytes: 10_000, sha256},
    },
  };
}

/** Prints the time of `status` in a bucket that holds `count` backups. */
export async function benchStatus(): Promise<void> {
  const server = await startObjectServer();
  try {
    const hex = randomBytes(32).toString('hex');
    const keys = {current: new Secret(hex), previous: []};
    const store = {
      kind: 's3' as const,
      endpoint: server.endpoint,
      region: server.region,
      accessKeyId: server.accessKeyId,
      secretAccessKey: new Secret(server.secretAccessKey),
      backupsBucket: await createBucket(server),
      filesBucket: 'unused',
    };
    const key = keyring(keys.current).current;
    using stores = await openStores(store);
    const now = Date.now();
    const body = Buffer.from('x');
    await pMap(
      Array.from({length: count}, (_, index) => new Date(now - index * dayMs)),
      async (startedAt) => {
        const name = backupKey(startedAt, 'gzip');
        const manifest = manifestOf(startedAt, name, key.fingerprint, body.length);
        await stores.backups.replace(name, body);
        await stores.backups.replace(manifestKey(name), Buffer.from(sealManifest(manifest, manifestSealingKey(key))));
      },
      {concurrency: 16},
    );
    const policy = {maxAgeMs: dayMs, maxUnverifiedMs: dayMs, retentionDays: 30};
    const times: number[] = [];
    for (let round = 0; round < 3; round += 1) {
      const started = performance.now();
      const result = await status({store, optionalKeys: keys, policy, formatAge: String}, {now: () => new Date()});
      if (result.backups !== count) throw new Error(`status found ${result.backups} backups`);
      times.push((performance.now() - started) / 1000);
    }
    const median = times.toSorted((a, b) => a - b)[1] ?? 0;
    const verdict = median <= 3 ? 'met' : 'missed';
    console.log(
      `status on ${count} backups of ${tables} tables, local S3 server: ${median.toFixed(2)} s (target 3 s: ${verdict})`,
    );
  } finally {
    await server.stop();
  }
}

if (import.meta.main) await benchStatus();
