//! The values that guards pass to handlers. There is at most one value of each type.

use std::any::{Any, TypeId};

#[derive(Default)]
pub struct Extensions {
    // A list is fast enough, because there are few values. An empty list allocates no memory.
    values: Vec<(TypeId, Box<dyn Any + Send + Sync>)>,
}

impl Extensions {
    /// Stores a value. Returns the earlier value of the same type, if there is one.
    pub fn insert<T: Any + Send + Sync>(&mut self, value: T) -> Option<T> {
        let replaced = self.remove();
        self.values.push((TypeId::of::<T>(), Box::new(value)));
        replaced
    }

    pub fn get<T: Any>(&self) -> Option<&T> {
        self.values[self.find::<T>()?].1.downcast_ref()
    }

    pub fn remove<T: Any>(&mut self) -> Option<T> {
        let index = self.find::<T>()?;
        self.values.swap_remove(index).1.downcast().ok().map(|value| *value)
    }

    fn find<T: Any>(&self) -> Option<usize> {
        self.values.iter().position(|(id, _)| *id == TypeId::of::<T>())
    }
}
