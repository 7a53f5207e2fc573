/** What a store, or whoever gets at it, can do to a backup. */
import {createCipheriv, randomBytes} from 'node:crypto';
import {gzipSync} from 'node:zlib';
import {backupKey, manifestKey, timestampOf} from '../../src/lib/catalog/key-names.ts';
import {type Manifest, readManifest, sealManifest} from '../../src/lib/catalog/manifest.ts';
import {encryptionKey} from '../../src/lib/encrypt/keys.ts';
import {parseHeader} from '../../src/lib/encrypt/message-header.ts';
import {manifestSealingKey} from '../../src/lib/operations/catalog.ts';
import {Secret} from '../../src/lib/secret.ts';
import type {ObjectStore} from '../../src/lib/upload/store.ts';
import {contentOf} from './settings.ts';

function sealing(key: string) {
  return manifestSealingKey(encryptionKey(new Secret(key)));
}

/** @throws Error for a manifest that is not sealed with this key */
export async function manifestOf(store: ObjectStore, backupKey: string, key: string): Promise<Manifest> {
  const reading = readManifest(await contentOf(store, manifestKey(backupKey)), backupKey, [sealing(key)]);
  if (reading.is === 'document' && reading.seal === 'verified') return reading.document;
  throw new Error(`The manifest of ${backupKey} is not good: ${JSON.stringify(reading)}.`);
}

/** Writes a changed manifest with a good seal: what only somebody with the key can do. */
export async function reseal(
  store: ObjectStore,
  backupKey: string,
  key: string,
  change: (manifest: Manifest) => Manifest,
): Promise<void> {
  const manifest = change(await manifestOf(store, backupKey, key));
  await store.replace(manifestKey(backupKey), Buffer.from(sealManifest(manifest, sealing(key))));
}

/**
 * The manifest of the same backup as if it had been taken at another time: whatever does not open the object cannot tell.
 * @returns the key of that backup, and the manifest, sealed
 */
export function takenAt(startedAt: Date, manifest: Manifest, key: string): {key: string; manifest: Buffer} {
  const name = backupKey(startedAt, manifest.compression);
  const objects = manifest.objects.map((object) => ({...object, key: name}));
  const sealed = sealManifest({...manifest, timestamp: startedAt.toISOString(), objects}, sealing(key));
  return {key: name, manifest: Buffer.from(sealed)};
}

/** Where the first frame of a sealed object ends, in bytes: sequence number, IV, 1 MiB, tag. */
export function endOfFirstFrame(body: Buffer): number {
  const reading = parseHeader(body);
  if (reading.is !== 'header') throw new Error('This is no sealed object.');
  const end = reading.header.length + 4 + 12 + reading.header.frameLength + 16;
  if (end >= body.length) throw new Error('This object has one frame only.');
  return end;
}

/** The object of a backup as the procedure before this program made it, and its key. */
export function legacyBackup(sql: string, key: string, startedAt: Date): {key: string; body: Buffer} {
  const iv = randomBytes(16);
  const cipher = createCipheriv('aes-256-gcm', Buffer.from(key, 'hex'), iv);
  const body = Buffer.concat([iv, cipher.update(gzipSync(sql, {level: 9})), cipher.final(), cipher.getAuthTag()]);
  const timestamp = timestampOf(startedAt);
  return {key: `database-backups/${timestamp}/backup-${timestamp}.sql.gz.encrypted`, body};
}

/** The manifest that lay beside some of them. */
export function legacyManifest(startedAt: Date, database: string, size: number): Buffer {
  const fields = {timestamp: startedAt.toISOString(), database, size, compressed: true, encrypted: true};
  return Buffer.from(JSON.stringify({...fields, retentionDays: 30, version: '1.0'}));
}
