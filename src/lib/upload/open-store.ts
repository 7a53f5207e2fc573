import path from 'node:path';
import type {StoreSettings} from '../config.ts';
import {DirectoryStore} from './directory-store.ts';
import type {ObjectStore} from './store.ts';

/** Disposing of them (`using`) closes their connections. */
export interface Stores extends Disposable {
  backups: ObjectStore;
  files: ObjectStore;
}

/**
 * The stores that the settings name. Nothing is contacted yet. The AWS SDK, a quarter of the time that a command needs to
 * start, is loaded only for a store that speaks to it.
 */
export async function openStores(settings: StoreSettings): Promise<Stores> {
  const {backupsBucket, filesBucket} = settings;
  if (settings.kind === 'directory') {
    return {
      backups: new DirectoryStore(path.join(settings.path, backupsBucket)),
      files: new DirectoryStore(path.join(settings.path, filesBucket)),
      [Symbol.dispose]: () => undefined,
    };
  }
  const {S3Store, s3Client} = await import('./s3-store.ts');
  const client = s3Client(settings);
  const place = settings.endpoint.endsWith('.r2.cloudflarestorage.com') ? 'R2' : settings.endpoint;
  return {
    backups: new S3Store(client, backupsBucket, `bucket ${backupsBucket} (${place})`),
    files: new S3Store(client, filesBucket, `bucket ${filesBucket} (${place})`),
    [Symbol.dispose]: () => client.destroy(),
  };
}
