//! Files and folders as they are found after the cut.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use anyhow::Result;

use super::changes::{Names, Node, Octets};

/// Files and folders to be written out.
pub struct Image {
    pub(super) folders: Vec<PathBuf>,
    pub(super) files: Vec<(PathBuf, Octets)>,
}

impl Image {
    /// Writes it into an empty folder; what is zero stays a hole.
    pub fn write_to(&self, folder: &Path) -> Result<()> {
        const PAGE: usize = 4096;
        for name in &self.folders {
            fs::create_dir(folder.join(name))?;
        }
        for (name, octets) in &self.files {
            let file = File::create(folder.join(name))?;
            file.set_len(octets.len() as u64)?;
            let mut begin = 0;
            while begin < octets.len() {
                let end = octets.len().min(begin + PAGE);
                let page = &octets[begin..end];
                if page != &[0; PAGE][..page.len()] {
                    file.write_all_at(page, begin as u64)?;
                }
                begin = end;
            }
        }
        Ok(())
    }
}

/// Adds what a folder holds.
pub(super) fn collect(
    names: &Names,
    folder: usize,
    path: &Path,
    octets: &impl Fn(usize) -> Octets,
    image: &mut Image,
) {
    let inside = names.range((folder, String::new())..(folder + 1, String::new()));
    for ((_, name), node) in inside {
        let path = path.join(name);
        match node {
            Node::File(file) => image.files.push((path, octets(*file))),
            Node::Folder(inside) => {
                image.folders.push(path.clone());
                collect(names, *inside, &path, octets, image);
            }
        }
    }
}
