/** A manifest and its key, to be changed by tests. */
import {createSecretKey} from 'node:crypto';
import type {Manifest, SealingKey} from '../../../src/lib/catalog/manifest.ts';

export const sampleKey = 'database-backups/2025-11-04T15-30-00-000Z/backup-2025-11-04T15-30-00-000Z.sql.gz.encrypted';

export const sealingKey: SealingKey = {fingerprint: '0123456789abcdef', key: createSecretKey(Buffer.alloc(32, 7))};

export const sampleManifest: Manifest = {
  version: '2.0',
  timestamp: '2025-11-04T15:30:00.000Z',
  database: 'clinic',
  size: 1234,
  compressed: true,
  encrypted: true,
  retentionDays: 30,
  compression: 'gzip',
  label: 'scheduled',
  hold: false,
  durationMs: 4200,
  dumpBytes: 9876,
  compressedBytes: 1200,
  objects: [{key: sampleKey, size: 1234, sha256: 'a'.repeat(64), partSize: 8_388_608}],
  serverVersion: '15.14',
  encoding: 'UTF8',
  roles: ['clinic_app'],
  pgDumpVersion: '15.14',
  toolVersion: '0.1.0',
  keyFingerprint: '0123456789abcdef',
  excludedTableData: ['log_*'],
  contents: {
    tables: [
      {table: 'public.patients', columns: 'id, name', rows: 2, bytes: 20, sha256: 'b'.repeat(64)},
      {table: 'public.visits', columns: '', rows: 5, bytes: 50, sha256: 'c'.repeat(64)},
    ],
    schema: {bytes: 900, sha256: 'd'.repeat(64)},
  },
};
