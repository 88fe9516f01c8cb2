//! A file of any size in pieces of bounded size: documents, and the items of large lists.
//!
//! A file is gone through twice, first for the places of its pieces and then for the pieces. The
//! bounds of the parser, such as on aliases and on nesting, hold for each piece.

use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use super::convert::{Parsed, Reader};
use super::documents::{self, Document, Items, Mark};
use super::tree::Place;

/// A list larger than this is read item by item.
const SMALL: u64 = 1 << 20;

/// What is held of a file at a time: a document that is not a list, an item of a list, or a list
/// without its items.
const LARGEST: u64 = 8 << 20;

/// Reads a file that must not change while it is read.
pub(super) fn file(path: &Path, input: impl Read + Seek) -> io::Result<Parsed> {
    let mut input = BufReader::with_capacity(1 << 16, input);
    let documents = documents::scan(&mut input, SMALL)?;
    let mut parsed = Parsed::default();
    let mut reader = FileReader { path, input, buffer: Vec::new(), parsed: &mut parsed };
    for document in documents {
        reader.parsed.documents += 1;
        reader.document(document)?;
    }
    parsed.finish(path);
    Ok(parsed)
}

/// Takes the pieces of a file out of it.
struct FileReader<'p, I> {
    path: &'p Path,
    input: BufReader<I>,
    /// The piece being read.
    buffer: Vec<u8>,
    parsed: &'p mut Parsed,
}

impl<I: Read + Seek> FileReader<'_, I> {
    fn document(&mut self, document: Document) -> io::Result<()> {
        let Document { start, end, items } = document;
        match items {
            Some(items) => self.list(start, &items, end),
            None if end - start.offset > LARGEST => {
                let remedy = "split it by lines \"---\", or write it as a List in block style \
                              (\"items:\" and each item under it behind \"- \") or in JSON, as kubectl \
                              does: that may have any size";
                self.too_large(start, end, "a document", remedy);
                Ok(())
            }
            None => {
                self.buffer.clear();
                self.take(start.offset, end)?;
                self.reader(vec![Origin::whole(start)]).read();
                Ok(())
            }
        }
    }

    /// Reads a list without its items, then the items one by one.
    fn list(&mut self, start: Mark, items: &Items, end: u64) -> io::Result<()> {
        let Items { json, starts, tail } = items;
        let Some(first) = starts.first() else { return Ok(()) };
        self.buffer.clear();
        if (first.offset - start.offset).saturating_add(end - tail.offset) > LARGEST {
            let remedy = "make the text around its items shorter";
            self.too_large(start, end, "a list", remedy);
            return Ok(());
        }
        self.take(start.offset, first.offset)?;
        let cut = Mark { offset: 0, place: Place { line: 1, column: 1 } }.behind(&self.buffer);
        self.take(tail.offset, end)?;
        let origins = vec![Origin::whole(start), Origin { text: cut.place, file: tail.place }];
        let Some(item) = self.reader(origins).frame() else { return Ok(()) };
        let ends = starts.iter().skip(1).chain([tail]);
        for (index, (start, end)) in starts.iter().zip(ends).enumerate() {
            if end.offset - start.offset > LARGEST {
                let remedy = "remove what is not needed of it";
                self.too_large(*start, end.offset, "an item", remedy);
                continue;
            }
            self.buffer.clear();
            self.take(start.offset, end.offset)?;
            if *json {
                while self.buffer.pop_if(|b| b.is_ascii_whitespace() || *b == b',').is_some() {}
            }
            self.reader(vec![Origin::whole(*start)]).item(index, *json, item);
        }
        Ok(())
    }

    fn take(&mut self, start: u64, end: u64) -> io::Result<()> {
        // Pieces follow each other: what is buffered is mostly what is needed.
        let here = self.input.stream_position()?;
        match i64::try_from(i128::from(start) - i128::from(here)) {
            Ok(distance) => self.input.seek_relative(distance)?,
            Err(_) => {
                self.input.seek(SeekFrom::Start(start))?;
            }
        }
        self.input.by_ref().take(end.saturating_sub(start)).read_to_end(&mut self.buffer)?;
        Ok(())
    }

    fn reader(&mut self, origins: Vec<Origin>) -> Reader<'_, '_> {
        Reader { path: self.path, bytes: &self.buffer, origins, parsed: self.parsed }
    }

    fn too_large(&mut self, start: Mark, end: u64, what: &str, remedy: &str) {
        let bytes = end - start.offset;
        let problem =
            format!("{what} of {} MiB, and more than {} are not read", bytes >> 20, LARGEST >> 20);
        let first = Place { line: 1, column: 1 };
        self.reader(vec![Origin::whole(start)]).unidentified(first, "", &problem, remedy);
    }
}

/// From where on a text has places of its own.
pub(super) struct Origin {
    pub text: Place,
    pub file: Place,
}

impl Origin {
    pub fn whole(start: Mark) -> Self {
        Self { text: Place { line: 1, column: 1 }, file: start.place }
    }

    pub fn map(&self, place: Place) -> (u32, u32) {
        let Self { text, file } = self;
        let line = file.line.saturating_add(place.line.saturating_sub(text.line));
        if place.line > text.line {
            return (line, place.column);
        }
        (line, file.column.saturating_add(place.column.saturating_sub(text.column)))
    }
}
